"""Errors that a user sees as one line without a traceback, and the exit codes of commands."""

from collections.abc import Iterator
from contextlib import contextmanager

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 75


class InputError(ValueError):
    """The user gave something that cannot be used.

    The message is one line that says what was given, what must hold and what to do. The command
    line prints it without a traceback and exits with code 2.
    """


class IntegrityError(RuntimeError):
    """A file that this project wrote is damaged. The command line exits with code 1."""


class TrainingError(RuntimeError):
    """A run cannot continue, e.g. its loss is not finite. The command line exits with code 1."""


class Interrupted(RuntimeError):
    """The user stopped a command. The message says what is kept. The exit code is 75."""


# These errors end a command with one line. Any other error is a bug and shows its traceback.
FORESEEN = (InputError, IntegrityError, TrainingError, Interrupted, KeyboardInterrupt)


@contextmanager
def interrupt_leaves(what: str) -> Iterator[None]:
    """Tells the user what is left on disk when Ctrl-C interrupts the block.

    Args:
        what: the message.

    Raises:
        Interrupted: with that message, instead of KeyboardInterrupt.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(what) from None


def extra(name: str) -> str:
    """Says how to install an extra of this project, which is not on a package index."""
    return f"pip install '.[{name}]' in the folder of this project"


def exit_of(error: BaseException) -> tuple[int, str]:
    """Returns the exit code and the line to print. For a bug, the line names the error's class."""
    text = " ".join(str(error).split())
    if isinstance(error, InputError):
        return BAD_INPUT, f"error: {text}"
    if isinstance(error, IntegrityError | TrainingError):
        return FAILED, f"error: {text}"
    if isinstance(error, Interrupted):
        return INTERRUPTED, f"interrupted: {text}"
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted: nothing was written"
    return FAILED, f"error: {type(error).__name__}: {text}"
