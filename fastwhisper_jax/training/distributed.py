"""Several processes as one run: joined where the environment says so, and ended together.

One process that fails leaves the others waiting in a collective until its heartbeats are missed. So
what fails tells the coordination service why, and a thread of every other process, which looks
there, ends it with the same exit code and one line.
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

# Where processes are started by hand; JAX itself reads the first one.
ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"

_LOOK_EVERY_SECONDS = 0.5
_LEAVE_SECONDS = 10.0
_FAILURE, _LEFT = "fastwhisper/failure", "fastwhisper/left/"


def join() -> None:
    """Makes this process one of several where its environment says so; else does nothing.

    Must be called before anything asks for devices. Processes started by hand are told by three
    variables; Slurm, Open MPI and Cloud TPU are detected by JAX.

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
            return  # a machine with TPU chips that stands alone: JAX has found no cluster
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
    """Whether JAX will use TPU chips here, and so has a metadata server to ask.

    Args:
        environment: variables, as JAX has left them when it was imported: where it finds no chip
            it sets TPU_SKIP_MDS_QUERY.
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
    """Checks that all processes were given the same.

    Args:
        what: for the error, e.g. "data".
        digest: of it, hexadecimal and of one length.

    Raises:
        InputError: this process has another one than process 0.
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
    """Ends every process of the run where one fails in the block, each with one line and one code.

    A process that ends so leaves at once: an orderly exit would wait for the others.
    """
    if jax.process_count() == 1:
        yield
        return
    with _Watch() as watch:
        try:
            yield
        except Interrupted:
            raise  # all processes do, at the same step
        except BaseException as error:
            watch.end_all(error)


class _Watch:
    """Looks for the failure of another process, in a thread, until the block ends."""

    def __init__(self) -> None:
        # JAX gives no public way to the store of its coordination service; Orbax reads it so too.
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
        """Tells the other processes, gives them time to leave, and leaves."""
        code, line = exit_of(error)
        with self._ends:
            if known := self._failure():  # ours follows from that of another process
                self._leave(*known)
            if not isinstance(error, FORESEEN):
                traceback.print_exception(error)
            told = line.replace(": ", f": process {jax.process_index()}: ", 1)
            with contextlib.suppress(jax.errors.JaxRuntimeError):  # two failed at once
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
        """Process 0 keeps the service, without which JAX aborts every process: it leaves last."""
        until = time.monotonic() + _LEAVE_SECONDS
        while time.monotonic() < until:
            time.sleep(_LOOK_EVERY_SECONDS / 2)
            if len(self._client.key_value_dir_get(_LEFT)) == jax.process_count():
                return
