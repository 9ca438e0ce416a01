"""A run directory: its config, checked against the recipe that would go on in it."""

import os
from pathlib import Path

from fastwhisper_jax.config import Config
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.recipe import fields, from_json, to_json

CONFIG = "config.json"


def read_config(run_dir: Path) -> Config:
    """The resolved config of a run.

    Raises:
        InputError: the folder is no run directory.
    """
    path = run_dir / CONFIG
    if not path.is_file():
        raise InputError(
            f"{run_dir} is no run directory (it has no {CONFIG}); name the --run-dir of a training"
        )
    try:
        return from_json(path.read_text())
    except ValueError as error:  # InputError is one, and so is what json raises
        raise InputError(f"{path} cannot be used: {error}") from error


def check_run_dir(run_dir: Path, config: Config) -> None:
    """Checks that a run of this config can begin or go on in a folder; writes nothing.

    Raises:
        InputError: another config's run, somebody's other files, or a folder that is not writable.
    """
    if (run_dir / CONFIG).is_file():
        before = read_config(run_dir)
        if before != config:
            pairs = zip(fields(before), fields(config), strict=True)
            changed = [f"{a[0]}={b[2]!r} (was {a[2]!r})" for a, b in pairs if a[2] != b[2]]
            raise InputError(
                f"{run_dir} holds a run of another config: {', '.join(changed)}; go on with that "
                "config, or choose another --run-dir"
            )
    elif run_dir.is_dir() and any(run_dir.iterdir()):
        raise InputError(
            f"{run_dir} holds files but no run; choose an empty or new folder as --run-dir"
        )
    existing = run_dir
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{run_dir} cannot be written; choose a --run-dir that can be")


def write_config(run_dir: Path, config: Config) -> None:
    """Makes the folder and writes the config, whole or not at all.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        partial = run_dir / f".{CONFIG}.{os.getpid()}"
        partial.write_text(to_json(config))
        os.replace(partial, run_dir / CONFIG)
    except OSError as error:
        raise InputError(
            f"{run_dir} cannot be written ({error.strerror}); choose a --run-dir that can be"
        ) from error
