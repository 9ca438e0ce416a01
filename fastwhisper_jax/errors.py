"""The errors that reach a user as one line, without a traceback."""


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
    """A run was asked to stop and has saved its state: the same command goes on. Exits with 75."""
