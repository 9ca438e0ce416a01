"""A run directory: its config, checked against the recipe that would go on in it."""

import json
import os
from pathlib import Path

from fastwhisper_jax.config import Config
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.recipe import fields, from_json, to_json

CONFIG = "config.json"


def read_config(run_dir: Path) -> Config:
    """The resolved config of a run.

    Raises:
        InputError: the folder is no run directory, or one of another version.
    """
    path = run_dir / CONFIG
    if not holds_run(run_dir):
        what = "there is no such folder" if not run_dir.is_dir() else f"it has no run's {CONFIG}"
        raise InputError(
            f"{run_dir} is no run directory ({what}); name the --run-dir of a training"
        )
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except InputError as error:
        raise InputError(f"{path} cannot be used: {error}") from error


def holds_run(run_dir: Path) -> bool:
    """Whether a folder's config.json is a run's: a model's has the same name and other fields."""
    try:
        values = json.loads((run_dir / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and {"teacher", "student", "training"} <= set(values)


def check_run_dir(run_dir: Path, config: Config) -> None:
    """Checks that a run of this config can begin or go on in a folder; writes nothing.

    Raises:
        InputError: another config's run, somebody's other files, or a folder that is not writable.
    """
    check_writable("--run-dir", run_dir)
    if holds_run(run_dir):
        # As text, for 1 (an update) and 1.0 (the whole run) are equal numbers.
        pairs = zip(fields(read_config(run_dir)), fields(config), strict=True)
        changed = [
            f"{name}={now!r} (was {before!r})"
            for (name, _, before), (_, _, now) in pairs
            if repr(before) != repr(now)
        ]
        if changed:
            raise InputError(
                f"{run_dir} holds a run of another config: {', '.join(changed)}; go on with that "
                "config, or choose another --run-dir"
            )
    elif run_dir.is_dir() and any(run_dir.iterdir()):
        raise InputError(
            f"{run_dir} holds files but no run; choose an empty or new folder as --run-dir"
        )


def check_writable(option: str, folder: Path) -> None:
    """Checks that a folder can be made or written to; writes nothing.

    Raises:
        InputError: it cannot.
    """
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise InputError(f"{option} {folder}: {existing} is a file; choose a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{option} {folder}: {existing} cannot be written; choose another folder")


def write_config(run_dir: Path, config: Config) -> None:
    """Makes the folder and writes the config, whole or not at all.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        partial = run_dir / f".{CONFIG}.{os.getpid()}"
        partial.write_text(to_json(config), encoding="utf-8")
        os.replace(partial, run_dir / CONFIG)
    except OSError as error:
        raise InputError(
            f"{run_dir} cannot be written ({error.strerror}); choose a --run-dir that can be"
        ) from error
