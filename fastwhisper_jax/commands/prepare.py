"""`fastwhisper prepare`: converts manifests and data sets to checksummed shards."""

import json
import os
from collections.abc import Callable
from typing import Any

from fastwhisper_jax.arguments import PrepareArguments
from fastwhisper_jax.data import prepare
from fastwhisper_jax.data.manifest import Dropped, Utterance
from fastwhisper_jax.data.shard_workers import write_shards
from fastwhisper_jax.data.shards import ABOUT, DROPPED, FORMAT, SHARDS
from fastwhisper_jax.data.sources import read_usable
from fastwhisper_jax.distillation.run_directory import check_writable
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.files import Path, make_folder, path_of, write_whole
from fastwhisper_jax.progress import progress

# What the shards are made of. A later call goes on with a folder that was begun with the same.
PLAN = "plan.json"

# The most unreadable utterances that are printed; a file names them all.
MOST_PRINTED = 3


def run(given: PrepareArguments, log: Callable[[str], None]) -> bool:
    """Converts manifests and data sets to a folder of shards, or completes such a folder.

    Args:
        given: the arguments of the command.
        log: prints a line for the user.

    Returns:
        Whether all audio could be read. Audio that could not is left out and named.

    Raises:
        InputError: no utterance can be used, or the folder holds something else.
    """
    for name in ("workers", "shard_seconds", "max_seconds"):
        value = getattr(given, name)
        if value is not None and value <= 0:
            raise InputError(f"--{name.replace('_', '-')} {value} must be above 0")
    out = path_of(given.out)
    check_writable("--out", out)
    utterances, unreadable = _read(given)
    fitting = [u for u in utterances if (u.duration or 0.0) <= given.max_seconds]
    too_long = [
        Dropped(u.id, f"{u.duration:.2f} s, longer than {given.max_seconds:g} s")
        for u in utterances
        if (u.duration or 0.0) > given.max_seconds
    ]
    if not fitting:
        first = f" ({unreadable[0].reason})" if unreadable else ""
        raise InputError(
            f"none of {len(utterances) + len(unreadable)} utterances of "
            f"{', '.join(given.sources)} can be used: {len(unreadable)} cannot be read{first}, "
            f"{len(too_long)} are longer than {given.max_seconds:g} s; correct or cut the data"
        )
    about = {
        "format": FORMAT,
        "max_seconds": given.max_seconds,
        "shard_seconds": given.shard_seconds,
        "source_sha256": prepare.source_digest(utterances),
    }
    _begin(out, about)
    shards = prepare.plan_shards(fitting, given.shard_seconds)
    missing = [number for number in range(len(shards)) if not prepare.is_complete(out, number)]
    with progress(len(fitting), "prepare", "utterances") as advance:
        for number in write_shards(out, shards, missing, given.workers or os.cpu_count() or 1):
            advance(len(shards[number]))
    kept, undecoded = prepare.write_index(out, len(shards), unreadable + too_long, about)
    unreadable += undecoded
    log(
        f"{out}: {kept} utterances in {len(shards)} shards, of which "
        f"{len(shards) - len(missing)} were there already"
    )
    if unreadable or too_long:
        log(
            f"left out: {len(too_long)} longer than {given.max_seconds:g} s, {len(unreadable)} "
            f"that cannot be read; all are named in {out / DROPPED}"
        )
    for entry in unreadable[:MOST_PRINTED]:
        log(f"  {entry.id}: {entry.reason}")
    return not unreadable


def _read(given: PrepareArguments) -> tuple[list[Utterance], list[Dropped]]:
    utterances, unreadable = list[Utterance](), list[Dropped]()
    for source in given.sources:
        usable, faults = read_usable(source, given.split)
        utterances += usable
        unreadable += faults
    return utterances, unreadable


def _begin(out: Path, about: dict[str, Any]) -> None:
    """Makes the folder and writes down what its shards are made of.

    Raises:
        InputError: the folder holds shards of other data or other files, or cannot be written.
    """
    try:
        if (out / PLAN).exists():
            before = json.loads((out / PLAN).read_text())
            if before != about:
                changed = [name for name in about if before.get(name) != about[name]]
                raise InputError(
                    f"{out} holds shards of something else ({', '.join(changed)} differ); choose "
                    "another --out, or remove that folder"
                )
        elif out.is_dir() and any(out.iterdir()):
            raise InputError(f"{out} holds other files; choose an empty or new folder as --out")
        make_folder(out / SHARDS)
        (out / ABOUT).unlink(missing_ok=True)
        write_whole(out / PLAN, json.dumps(about, indent=1) + "\n")
    except OSError as error:
        raise InputError(
            f"{out} cannot be written ({error.strerror or error}); choose another --out"
        ) from error
