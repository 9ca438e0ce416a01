"""The errors that reach a user as one line, without a traceback, and the exit codes of commands."""

from collections.abc import Iterator
from contextlib import contextmanager

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 75


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that says what was given, what must hold and what to do. The command
    line prints it without a traceback and exits with code 2.
    """


class IntegrityError(RuntimeError):
    """Something that this project wrote is damaged. The command line prints it and exits with 1."""


class TrainingError(RuntimeError):
    """A run cannot go on, such as for a loss that is not finite. The command line exits with 1."""


class Interrupted(RuntimeError):
    """A command was asked to stop; the message says what is kept of its work. Exits with 75."""


# What ends a command with one line; anything else is a bug, with its traceback.
FORESEEN = (InputError, IntegrityError, TrainingError, Interrupted, KeyboardInterrupt)


@contextmanager
def interrupt_leaves(what: str) -> Iterator[None]:
    """Says what an interrupt of the block leaves, where that is more than nothing.

    Raises:
        Interrupted: instead of KeyboardInterrupt, with this message.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(what) from None


def extra(name: str) -> str:
    """How to install an extra of this project, for an error's last words; no index has it."""
    return f"pip install '.[{name}]' in the folder of this project"


def exit_of(error: BaseException) -> tuple[int, str]:
    """The exit code and the one line that stand for an error; one of a bug names its class."""
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
