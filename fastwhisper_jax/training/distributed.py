"""Several processes as one run: they join if the environment says so, and they end together.

If one process fails, the others wait in a collective until its heartbeats are missed. So a process
that fails writes the reason to the coordination service. A thread of every other process reads it
there, and ends its process with the same exit code and one line.
"""

import contextlib
import importlib.util
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from fastwhisper_jax.errors import FORESEEN, InputError, Interrupted, exit_of

# Variables for processes that are started by hand. JAX itself reads the first one.
ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"

_LOOK_EVERY_SECONDS = 0.5
_LEAVE_SECONDS = 10.0
_FAILURE, _LEFT = "fastwhisper/failure", "fastwhisper/left/"


def join() -> None:
    """Joins this process to the others of its run if the environment names any.

    Call it before anything asks for devices. Three variables tell processes that are started by
    hand; JAX detects Slurm, Open MPI and Cloud TPU.

    Raises:
        InputError: the environment names a run of several processes that cannot be joined.
    """
    is_named = is_called_for(os.environ)
    if jax.distributed.is_initialized() or not (is_named or has_tpu(os.environ)):
        return
    try:
        jax.distributed.initialize(num_processes=_number(COUNT), process_id=_number(INDEX))
    except (ValueError, RuntimeError, OSError) as error:
        if isinstance(error, ValueError) and not is_named:
            return  # a single machine with TPU chips: JAX has found no cluster
        reason = " ".join(str(error).split())
        raise InputError(
            f"this process cannot join the others of its run ({reason}); every process needs "
            f"{ADDRESS} (HOST:PORT of the first), {COUNT} and {INDEX}, or none of the three on a "
            "cluster that JAX detects"
        ) from error


def is_called_for(environment: Mapping[str, str]) -> bool:
    """Whether variables say that a process is one of several."""
    hosts = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")
    counts = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "MEGASCALE_NUM_SLICES")
    return (
        ADDRESS in environment
        or any(environment.get(name, "1") != "1" for name in counts)
        or any("," in environment.get(name, "") for name in hosts)
    )


def has_tpu(environment: Mapping[str, str]) -> bool:
    """Whether JAX will use TPU chips here, and so asks a metadata server.

    Args:
        environment: the variables after JAX was imported. If JAX finds no chip, it sets
            TPU_SKIP_MDS_QUERY.
    """
    allowed = environment.get("JAX_PLATFORMS", "")
    return (
        (not allowed or "tpu" in allowed)
        and "TPU_SKIP_MDS_QUERY" not in environment
        and importlib.util.find_spec("libtpu") is not None
    )


def _number(variable: str) -> int | None:
    value = os.environ.get(variable)
    if value is None:
        return None
    if not value.isdecimal():
        raise InputError(f"{variable}={value!r} must be a number; correct it")
    return int(value)


def check_agreement(what: str, digest: str) -> None:
    """Checks that all processes have the same digest.

    Args:
        what: what the digest is of, for the error, such as "data".
        digest: hexadecimal digits, equally many in all processes.

    Raises:
        InputError: the digest of this process differs from that of process 0.
    """
    if jax.process_count() == 1:
        return
    ours = np.frombuffer(bytes.fromhex(digest), np.uint8)
    if (multihost_utils.broadcast_one_to_all(ours) != ours).any():
        raise InputError(
            f"process {jax.process_index()} has another {what} than process 0; all processes of a "
            "run must read the same: give all of them the same command and the same files"
        )


def wait_for_all(name: str) -> None:
    """Returns when every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def ended_together() -> Iterator[None]:
    """Ends every process of the run if one fails in the block, with the same line and exit code.

    Such a process exits at once, because an orderly exit would wait for the others.
    """
    if jax.process_count() == 1:
        yield
        return
    with _Watch() as watch:
        try:
            yield
        except Interrupted:
            raise  # all processes raise it, at the same step
        except BaseException as error:
            watch.end_all(error)


class _Watch:
    """A thread that looks for the failure of another process until the block ends."""

    def __init__(self) -> None:
        # JAX has no public access to the key-value store of its coordination service.
        from jax._src.distributed import global_state

        self._client: Any = global_state.client
        self._is_over = threading.Event()
        self._ends = threading.Lock()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._is_over.wait(_LOOK_EVERY_SECONDS):
            if failure := self._failure():
                with self._ends:
                    self._leave(*failure)

    def _failure(self) -> tuple[int, str] | None:
        try:
            code, _, line = self._client.key_value_try_get(_FAILURE).partition(" ")
        except jax.errors.JaxRuntimeError:  # not found, or the service has gone
            return None
        return int(code), line

    def end_all(self, error: BaseException) -> None:
        """Tells the other processes about the error, then exits."""
        code, line = exit_of(error)
        with self._ends:
            if known := self._failure():  # our error follows from that of another process
                self._leave(*known)
            if not isinstance(error, FORESEEN):
                traceback.print_exception(error)
            told = line.replace(": ", f": process {jax.process_index()}: ", 1)
            with contextlib.suppress(jax.errors.JaxRuntimeError):  # if two failed at once
                self._client.key_value_set(_FAILURE, f"{code} {told}")
            self._leave(code, line)

    def _leave(self, code: int, line: str) -> None:
        print(line, file=sys.stderr, flush=True)
        sys.stdout.flush()
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self._client.key_value_set(f"{_LEFT}{jax.process_index()}", "")
            if jax.process_index() == 0:
                self._wait_for_the_others()
        os._exit(code)

    def _wait_for_the_others(self) -> None:
        """Lets process 0 exit last: it runs the service, without which JAX aborts every process."""
        until = time.monotonic() + _LEAVE_SECONDS
        while time.monotonic() < until:
            time.sleep(_LOOK_EVERY_SECONDS / 2)
            if len(self._client.key_value_dir_get(_LEFT)) == jax.process_count():
                return
