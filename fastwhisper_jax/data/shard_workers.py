"""Worker processes that write the shards of `fastwhisper prepare`."""

import concurrent.futures
import itertools
import multiprocessing
import signal
from collections.abc import Iterator, Sequence

from fastwhisper_jax.data import prepare
from fastwhisper_jax.data.manifest import Utterance
from fastwhisper_jax.errors import TrainingError
from fastwhisper_jax.files import Path


def write_shards(
    out: Path, shards: Sequence[Sequence[Utterance]], missing: Sequence[int], workers: int
) -> Iterator[int]:
    """Writes shards in several processes; yields the number of each when it is whole.

    Args:
        out: the folder of shards.
        shards: the utterances of every shard.
        missing: the numbers of the shards to write.
        workers: the most processes; with one, this process does the work.

    Raises:
        TrainingError: a worker died.
    """
    workers = min(workers, len(missing))
    if workers <= 1:
        for number in missing:
            prepare.write_shard(str(out), number, shards[number])
            yield number
        return
    # A forked process would inherit the locks of this process's threads, so workers are spawned.
    pool = concurrent.futures.ProcessPoolExecutor(
        workers,
        multiprocessing.get_context("spawn"),
        signal.signal,
        (signal.SIGINT, signal.SIG_IGN),
    )
    waiting, jobs = iter(missing), dict[concurrent.futures.Future[None], int]()
    try:
        while True:
            # A pool cannot cancel the jobs in its queue, so it never gets more jobs than workers.
            for number in itertools.islice(waiting, workers - len(jobs)):
                jobs[pool.submit(_write, str(out), number, shards[number])] = number
            if not jobs:
                return
            done, _ = concurrent.futures.wait(jobs, return_when=concurrent.futures.FIRST_COMPLETED)
            for job in done:
                job.result()
                yield jobs.pop(job)
    except concurrent.futures.process.BrokenProcessPool as error:
        raise TrainingError(
            "a worker process died, perhaps because memory ran out; complete shards are kept: give "
            "the same command again, with fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _write(out: str, number: int, shard: Sequence[Utterance]) -> None:
    """Writes one shard in a worker, which Ctrl-C interrupts only while it writes.

    A terminal sends SIGINT to every process of a command. An idle worker would print a traceback.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        prepare.write_shard(out, number, shard)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
