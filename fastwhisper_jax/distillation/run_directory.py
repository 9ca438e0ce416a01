"""A run directory: its config, and whether a recipe may resume the run that it holds."""

import dataclasses
import json
import os

from fastwhisper_jax.config import Config
from fastwhisper_jax.config.eval_sets import join_source, split_source
from fastwhisper_jax.config.recipe import fields, from_json, to_json
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.files import (
    Path,
    check_reachable,
    is_remote,
    make_folder,
    path_of,
    write_whole,
)

CONFIG = "config.json"

# Fields that a resumed run may change. They say how a run is computed, logged and saved. They do
# not change what it learns, except for the order in which devices add up.
MAY_CHANGE = frozenset(
    {
        "student.rematerialise",
        "data.threads",
        "training.log_every",
        "training.eval_every",
        "training.save_every",
        "training.keep_checkpoints",
        "training.eval_batch_size",
        "training.keep_best",
        "training.evaluate_at_start",
        "training.evaluate_ema",
        "mesh.data",
        "mesh.fsdp",
        "mesh.tensor",
    }
)


def resolved(config: Config) -> Config:
    """Makes the path of every file and folder in a config absolute.

    Commands that run in other folders read a run's config again. A name that is not a path here,
    such as a hub id, does not change.
    """

    def absolute(name: str | None) -> str | None:
        if name is None or is_remote(name) or not path_of(name).exists():
            return name
        return str(path_of(name).absolute())

    def all_absolute(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(absolute(name) or name for name in names)

    def absolute_source(entry: str) -> str:
        name, path = split_source(entry)
        return join_source(name, absolute(path) or path)

    data, replace = config.data, dataclasses.replace
    cache = data.cache
    if cache is not None and not is_remote(cache):  # it need not exist yet
        cache = str(path_of(cache).absolute())
    return replace(
        config,
        teacher=replace(config.teacher, path=absolute(config.teacher.path)),
        student=replace(config.student, path=absolute(config.student.path)),
        data=replace(
            data,
            train=all_absolute(data.train),
            eval=tuple(map(absolute_source, data.eval)),
            cache=cache,
        ),
    )


def read_config(run_dir: Path) -> Config:
    """Reads the resolved config of a run.

    Raises:
        InputError: the folder is not a run directory, or another version wrote it.
    """
    path = run_dir / CONFIG
    if not holds_run(run_dir):
        what = "there is no such folder" if not run_dir.is_dir() else f"it has no run's {CONFIG}"
        raise InputError(
            f"{run_dir} is no run directory ({what}); name the --run-dir of a training"
        )
    try:
        return from_json(path.read_text())
    except InputError as error:
        raise InputError(f"{path} cannot be used: {error}") from error


def holds_run(run_dir: Path) -> bool:
    """Whether a folder's config.json is a run's; a model's has the same name, but other fields."""
    try:
        values = json.loads((run_dir / CONFIG).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and {"teacher", "student", "training"} <= set(values)


def check_run_dir(run_dir: Path, config: Config) -> None:
    """Checks that a run of this config can begin or resume in a folder; writes nothing.

    A run resumes with another mesh, and with other values of the fields in MAY_CHANGE.

    Raises:
        InputError: the folder holds a run of another config or other files, or is not writable.
    """
    check_writable("--run-dir", run_dir)
    if holds_run(run_dir):
        # Compare as text: 1 (one update) and 1.0 (the whole run) are equal as numbers.
        pairs = zip(fields(resolved(read_config(run_dir))), fields(config), strict=True)
        changed = [
            f"{name}={now!r} (was {before!r})"
            for (name, _, before), (_, _, now) in pairs
            if repr(before) != repr(now) and name not in MAY_CHANGE
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
        InputError: it cannot be made or written to.
    """
    if is_remote(folder):
        check_reachable(option, folder)
        return
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise InputError(f"{option} {folder}: {existing} is a file; choose a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{option} {folder}: {existing} cannot be written; choose another folder")


def write_config(run_dir: Path, config: Config) -> None:
    """Makes the folder and writes the config atomically.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        make_folder(run_dir)
        write_whole(run_dir / CONFIG, to_json(config))
    except OSError as error:
        raise InputError(
            f"{run_dir} cannot be written ({error.strerror}); choose a --run-dir that can be"
        ) from error
