"""Progress is a bar on a terminal; elsewhere it is plain lines with rate and time left."""

import io

import pytest

from fastwhisper_jax import progress as progress_module
from fastwhisper_jax.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that only a test moves: clock[0] += seconds."""
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


def test_plain_lines_come_by_time_not_by_step(clock):
    out = io.StringIO()
    with progress(100, "train", "steps", stream=out) as advance:
        for step in range(1, 101):
            clock[0] += 0.5
            advance(1, loss=1 / step, wer=0.25)
    assert out.getvalue().splitlines() == [
        "train: 20/100 steps, 2 steps/s, 40s left, loss=0.05, wer=0.25",
        "train: 40/100 steps, 2 steps/s, 30s left, loss=0.025, wer=0.25",
        "train: 60/100 steps, 2 steps/s, 20s left, loss=0.01667, wer=0.25",
        "train: 80/100 steps, 2 steps/s, 10s left, loss=0.0125, wer=0.25",
        "train: 100/100 steps, 2 steps/s, in 50s, loss=0.01, wer=0.25",
    ]


def test_compiling_before_the_first_step_does_not_enter_the_rate(clock):
    out = io.StringIO()
    with progress(100, "train", "steps", stream=out) as advance:
        clock[0] += 600
        advance()
        for _ in range(10):
            clock[0] += 1
            advance()
    assert out.getvalue().splitlines() == [
        "train: 1/100 steps",
        "train: 11/100 steps, 1 steps/s, 1m29s left",
    ]


def test_compiling_before_the_first_step_does_not_enter_the_rate_of_a_bar(clock):
    out = Terminal()
    with progress(100, "train", "steps", initial=40, stream=out) as advance:
        clock[0] += 600
        advance()
        for _ in range(10):
            clock[0] += 1
            advance()
    assert "51/100 [00:10<00:49,  1.00 steps/s]" in out.getvalue()


def test_work_of_an_earlier_run_does_not_enter_the_rate(clock):
    out = io.StringIO()
    with progress(8000, "train", "steps", initial=400, stream=out) as advance:
        advance(10)
        clock[0] += 10
        advance(10)
    assert out.getvalue() == "train: 420/8000 steps, 1 steps/s, 2h06m left\n"


def test_not_shown_prints_nothing():
    out = Terminal()
    with progress(3, "train", "steps", shown=False, stream=out) as advance:
        advance(3)
        advance.write("hello")
    assert out.getvalue() == ""


def test_an_error_in_the_block_is_raised_after_the_last_line():
    out = io.StringIO()
    with pytest.raises(KeyError), progress(3, "train", "steps", stream=out) as advance:
        advance(1)
        raise KeyError
    assert out.getvalue() == "train: 1/3 steps\n"


def test_terminal_gets_a_bar_that_lines_do_not_disturb():
    out = Terminal()
    with progress(4, "train", "steps", stream=out) as advance:
        advance(2, loss=0.5)
        advance.write("checkpoint saved")
        advance(2, loss=0.25)
    shown = out.getvalue()
    assert "checkpoint saved\n" in shown
    assert "4/4" in shown
    assert "loss=0.25" in shown
    assert "steps/s" in shown
