"""What is written to a local disk only: the type of the options that name it."""

import argparse
from pathlib import Path


def local_path(text: str) -> Path:
    """The local path that an argument names.

    Raises:
        ArgumentTypeError: it names a place in an object store, which `Path` would take for a local
            folder of that name.
    """
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"{text} is not a local path; write to a local one, then copy what is there, such as "
            "with gcloud storage cp --recursive"
        )
    return Path(text)
