"""A signal asks; the loop answers when its state is whole."""

import os
import signal
import threading

import pytest

from fastwhisper_jax.training.interruption import stop_request

BOTH = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def handlers_are_restored():
    before = [signal.getsignal(number) for number in BOTH]
    yield
    assert [signal.getsignal(number) for number in BOTH] == before


@pytest.mark.parametrize("number", BOTH)
def test_one_signal_is_a_request_and_no_exception(number):
    with stop_request() as stop:
        assert not stop.at(1)
        os.kill(os.getpid(), number)
        assert stop.at(2)
        assert stop.at(3)


def test_a_second_sigterm_changes_nothing():
    with stop_request() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.at(1)


def test_a_second_ctrl_c_stops_at_once():
    with pytest.raises(KeyboardInterrupt):
        with stop_request():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_restored_after_an_error():
    with pytest.raises(RuntimeError, match="broken"):
        with stop_request():
            raise RuntimeError("broken")


def test_outside_the_main_thread_signals_are_left_alone():
    found = []

    def work():
        with stop_request() as stop:
            found.append((signal.getsignal(signal.SIGTERM), stop.at(1)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(before, False)]
