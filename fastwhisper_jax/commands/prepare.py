"""`fastwhisper prepare`: manifests and data sets become checked shards, once."""

import concurrent.futures
import functools
import itertools
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fastwhisper_jax.commands.prepare_arguments import Options
from fastwhisper_jax.data import prepare
from fastwhisper_jax.data.manifest import Dropped, Utterance
from fastwhisper_jax.data.shards import ABOUT, DROPPED, FORMAT, SHARDS
from fastwhisper_jax.data.sources import read_usable
from fastwhisper_jax.distillation.run_directory import check_writable
from fastwhisper_jax.errors import InputError, TrainingError
from fastwhisper_jax.files import Path, make_folder, path_of, write_whole
from fastwhisper_jax.progress import progress

# What the shards are made of; a second call goes on where this is the same.
PLAN = "plan.json"

_NAMED = 3


def run(options: Options, say: Callable[[str], None]) -> bool:
    """Converts manifests and data sets to a folder of shards, or makes what is missing of it.

    Args:
        options: of the command.
        say: prints a line for the user.

    Returns:
        Whether all audio could be read; what could not is left out and named.

    Raises:
        InputError: nothing can be used, or the folder holds something else.
    """
    for name in ("workers", "shard_seconds", "max_seconds"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise InputError(f"--{name.replace('_', '-')} {value} must be above 0")
    out = path_of(options.out)
    check_writable("--out", out)
    utterances, unreadable = _read(options)
    fitting = [u for u in utterances if (u.duration or 0.0) <= options.max_seconds]
    too_long = [
        Dropped(u.id, f"{u.duration:.2f} s, longer than {options.max_seconds:g} s")
        for u in utterances
        if (u.duration or 0.0) > options.max_seconds
    ]
    if not fitting:
        first = f" ({unreadable[0].reason})" if unreadable else ""
        raise InputError(
            f"none of {len(utterances) + len(unreadable)} utterances of "
            f"{', '.join(options.sources)} can be used: {len(unreadable)} cannot be read{first}, "
            f"{len(too_long)} are longer than {options.max_seconds:g} s; correct or cut the data"
        )
    about = {
        "format": FORMAT,
        "max_seconds": options.max_seconds,
        "shard_seconds": options.shard_seconds,
        "source_sha256": prepare.source_digest(utterances),
    }
    _begin(out, about)
    shards = prepare.plan_shards(fitting, options.shard_seconds)
    missing = [number for number in range(len(shards)) if not prepare.is_complete(out, number)]
    with progress(len(fitting), "prepare", "utterances", initial=0) as advance:
        for number in _made(out, shards, missing, options.workers or os.cpu_count() or 1):
            advance(len(shards[number]))
    kept, undecoded = prepare.write_index(out, len(shards), unreadable + too_long, about)
    unreadable += undecoded
    say(
        f"{out}: {kept} utterances in {len(shards)} shards, of which "
        f"{len(shards) - len(missing)} were there already"
    )
    if unreadable or too_long:
        say(
            f"left out: {len(too_long)} longer than {options.max_seconds:g} s, {len(unreadable)} "
            f"that cannot be read; all are named in {out / DROPPED}"
        )
    for entry in unreadable[:_NAMED]:
        say(f"  {entry.id}: {entry.reason}")
    return not unreadable


def _read(options: Options) -> tuple[list[Utterance], list[Dropped]]:
    utterances, dropped = list[Utterance](), list[Dropped]()
    for source in options.sources:
        usable, faults = read_usable(source, options.split)
        utterances += usable
        dropped += faults
    return utterances, dropped


def _begin(out: Path, about: dict[str, Any]) -> None:
    """Notes what the shards are to be made of; refuses a folder with others.

    Raises:
        InputError: the folder holds other shards or other files.
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


def _made(
    out: Path, shards: Sequence[Sequence[Utterance]], missing: Sequence[int], workers: int
) -> Iterator[int]:
    """Makes shards in several processes; yields the number of each when it is whole."""
    make = functools.partial(_make, str(out))
    workers = min(workers, len(missing))
    if workers <= 1:
        for number in missing:
            prepare.write_shard(str(out), number, shards[number])
            yield number
        return
    context = multiprocessing.get_context("spawn")  # a fork would take threads' locks along
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, context, signal.signal, (signal.SIGINT, signal.SIG_IGN)
    )
    waiting, jobs = iter(missing), dict[concurrent.futures.Future[None], int]()
    try:
        while True:
            # No more than there are workers: what a pool has queued cannot be cancelled.
            for number in itertools.islice(waiting, workers - len(jobs)):
                jobs[pool.submit(make, number, shards[number])] = number
            if not jobs:
                return
            done, _ = concurrent.futures.wait(jobs, return_when=concurrent.futures.FIRST_COMPLETED)
            for job in done:
                job.result()
                yield jobs.pop(job)
    except concurrent.futures.process.BrokenProcessPool as error:
        raise TrainingError(
            "a worker process has died, perhaps for want of memory; what is complete is kept: give "
            "the same command again, with fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _make(out: str, number: int, shard: Sequence[Utterance]) -> None:
    """Makes one shard in a worker, which Ctrl-C interrupts then and only then.

    A terminal sends SIGINT to every process of the command; an idle worker would print a traceback.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        prepare.write_shard(out, number, shard)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
