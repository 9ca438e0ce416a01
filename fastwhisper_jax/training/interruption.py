"""Stops a run without losing its state: after SIGTERM or Ctrl-C the step ends, then it saves."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax
from jax.experimental import multihost_utils


class StopRequest:
    """Whether the run was asked to stop. A second Ctrl-C stops it at once."""

    def __init__(self) -> None:
        self._requested = False

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if self._requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._requested = True
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def at(self, step: int) -> bool:
        """Whether to stop after this step. All processes of a run get the same answer."""
        if jax.process_count() > 1:
            return bool(multihost_utils.reached_preemption_sync_point(step))
        return self._requested


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Turns SIGTERM and SIGINT into a request while the block runs.

    Only the main thread can handle signals; in another one nothing changes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    # With several processes, JAX's coordination service handles SIGTERM and tells all of them.
    numbers = (signal.SIGTERM, signal.SIGINT) if jax.process_count() == 1 else (signal.SIGINT,)
    before = {number: signal.signal(number, request.receive) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
