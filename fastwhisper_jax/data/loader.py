"""From batch layouts to arrays: background threads make batches, and a few wait on the device."""

import collections
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from fastwhisper_jax.audio.constants import HOP_SAMPLES
from fastwhisper_jax.audio.files import load_audio, pad_or_trim
from fastwhisper_jax.audio.windows import window_samples
from fastwhisper_jax.data.batching import BatchLayout
from fastwhisper_jax.data.manifest import Utterance

HostBatch = dict[str, np.ndarray]
Rows = Sequence[Sequence[Utterance]]
LoadInputs = Callable[[Rows, BatchLayout], HostBatch]
T = TypeVar("T")


class BatchLayouts(Protocol):
    """The layouts of a run's batches by step: a `BatchSchedule`, or a list."""

    def __len__(self) -> int: ...
    def __getitem__(self, step: int, /) -> BatchLayout: ...


def audio_inputs(rows: Rows, layout: BatchLayout) -> HostBatch:
    """Decodes the audio of rows of utterances: the usual encoder input of a batch.

    The utterances of a row follow each other without a gap.

    Args:
        rows: for each row, the utterances joined in it; none for an empty row.
        layout: of the batch; it names the window, whose length is A samples.

    Returns:
        "audio" (b, A) float32, zero after the speech; "frames" (b,) int32, mel frames of each row
        that hold speech.
    """
    samples = window_samples(layout.window_seconds)
    audio = np.zeros((len(rows), samples), np.float32)
    frames = np.zeros((len(rows),), np.int32)
    for index, row in enumerate(rows):
        if not row:
            continue
        parts = [load_audio(each.audio, each.offset, each.duration) for each in row]
        speech = np.concatenate(parts)
        audio[index] = pad_or_trim(speech, samples)
        frames[index] = -(-min(len(speech), samples) // HOP_SAMPLES)  # rounded up
    return {"audio": audio, "frames": frames}


def read_batches(
    layouts: BatchLayouts,
    collate: Callable[[BatchLayout], T],
    *,
    start_step: int = 0,
    threads: int = 4,
    buffered: int = 4,
) -> Generator[T, None, None]:
    """Yields the batches of a run in order; background threads make them ahead of time.

    Decoding and resampling release the interpreter lock, so threads are enough. The threads end
    with the generator: at its end, on `close()`, or when it is collected. An error in `collate` is
    raised here, at the step whose batch it was to make.

    Args:
        layouts: the layouts of the whole run.
        collate: makes a batch from its layout.
        start_step: the first step to make a batch for: the number of completed updates.
        threads: how many batches are made at once.
        buffered: how many finished batches wait.
    """
    import grain  # 0.7 s to import: only for those who read batches

    if start_step >= len(layouts):
        return
    # The source holds steps, not layouts, so that grain never asks for the length of `layouts`.
    steps = grain.MapDataset.range(start_step, len(layouts))
    batches = steps.map(lambda step: collate(layouts[step]))
    iterator = iter(
        batches.to_iter_dataset(
            grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffered)
        )
    )
    try:
        yield from iterator
    finally:
        iterator.close()


def prefetch_to_device(
    batches: Iterable[HostBatch], put: Callable[[HostBatch], T], size: int = 2
) -> Generator[T, None, None]:
    """Keeps `size` batches on the device ahead of the one being computed.

    Args:
        batches: host batches. A generator is closed together with this one.
        put: starts the transfer of a batch and returns at once.
        size: how many batches are ahead; 0 transfers each one only when it is asked for.
    """
    iterator = iter(batches)
    waiting: collections.deque[T] = collections.deque()
    try:
        for batch in iterator:
            waiting.append(put(batch))
            if len(waiting) > size:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        if isinstance(iterator, Generator):
            iterator.close()
