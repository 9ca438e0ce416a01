"""From batch plans to arrays: decoding in background threads, and prefetch to the device."""

import collections
import functools
import itertools
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from fastwhisper_jax.audio.constants import HOP_SAMPLES
from fastwhisper_jax.audio.files import load_audio, pad_or_trim
from fastwhisper_jax.data.batching import BatchLayout
from fastwhisper_jax.data.manifest import Utterance
from fastwhisper_jax.models.whisper.timestamp_labels import timestamped
from fastwhisper_jax.models.whisper.tokens import UtteranceTokens, decoder_arrays

Batch = dict[str, np.ndarray]
Rows = Sequence[Sequence[Utterance]]
LoadInputs = Callable[[Rows, int], Batch]
T = TypeVar("T")


class Schedule(Protocol):
    """The batches of a run by step: a `BatchSchedule`, or a list of plans."""

    def __len__(self) -> int: ...
    def __getitem__(self, step: int, /) -> BatchLayout: ...


def audio_inputs(rows: Rows, target_length: int, *, samples: int) -> Batch:
    """Decodes the audio of rows of utterances: the usual encoder input of a batch.

    A row's utterances are laid back to back.

    Args:
        rows: for each row, the utterances joined in it; none for an empty row.
        target_length: T of the batch, of no concern to audio.
        samples: A, length of the window.

    Returns:
        "audio" (b, A) float32, zero after the speech; "frames" (b,) int32, mel frames of each row
        that hold speech.
    """
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


def assemble_batch(
    plan: BatchLayout,
    utterances: Sequence[Utterance],
    tokens: Sequence[UtteranceTokens],
    load_inputs: LoadInputs,
    *,
    end_of_text: int,
    local_rows: Sequence[int] | None = None,
) -> Batch:
    """Builds a planned batch, or one process's share of it.

    Args:
        plan: of the global batch.
        utterances: which the plan's indices name.
        tokens: of each utterance.
        load_inputs: makes the encoder's input from rows of utterances (empty rows included) and T,
            such as `audio_inputs` with its sizes bound; what it returns joins the batch.
        end_of_text: id of the padding token.
        local_rows: numbers of the global batch's rows that are wanted; None for all.

    Returns:
        What `load_inputs` returned, "input_ids" and "labels" (b, T) int32, and "label_mask" (b, T)
        float32, which is all zero in empty rows.
    """
    rows = plan.rows if local_rows is None else [plan.rows[row] for row in local_rows]
    shape = (len(rows), plan.target_length)
    input_ids = np.full(shape, end_of_text, np.int32)
    labels = np.full(shape, end_of_text, np.int32)
    label_mask = np.zeros(shape, np.float32)
    for index, row in enumerate(rows):
        if row:
            joined = [tokens[i] for i in row]
            if row[0] in plan.timestamped:
                seconds = [utterances[i].duration or 0.0 for i in row]
                prompt, label = timestamped(joined, seconds)
            else:
                prompt = joined[0].prompt
                label = tuple(itertools.chain.from_iterable(each.label for each in joined))
            input_ids[index], labels[index], label_mask[index] = decoder_arrays(
                prompt, label, plan.target_length, end_of_text
            )
    inputs = load_inputs([[utterances[i] for i in row] for row in rows], plan.target_length)
    return {**inputs, "input_ids": input_ids, "labels": labels, "label_mask": label_mask}


def read_batches(
    schedule: Schedule,
    assemble: Callable[[BatchLayout], T],
    *,
    start_step: int = 0,
    threads: int = 4,
    buffered: int = 4,
) -> Generator[T, None, None]:
    """Yields the batches of a schedule in order, made ahead of time by background threads.

    Decoding and resampling run outside the interpreter lock, so threads are enough. The threads
    start once and end with the generator: at its end, on `close()`, or when it is collected. An
    error in `assemble` is raised here, at the step it belongs to.

    Args:
        schedule: of the whole run.
        assemble: makes a batch from its plan, such as `assemble_batch` with its data bound.
        start_step: where to begin: the number of completed updates when resuming.
        threads: batches made at once.
        buffered: batches made ahead.
    """
    import grain  # 0.7 s to import: only for those who read batches

    if start_step >= len(schedule):
        return
    # Steps rather than plans are the source, so that grain never touches the schedule's length.
    steps = grain.MapDataset.range(start_step, len(schedule))
    batches = steps.map(functools.partial(_assemble_step, schedule, assemble))
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
    batches: Iterable[Batch], put: Callable[[Batch], T], size: int = 2
) -> Generator[T, None, None]:
    """Keeps `size` batches on the device ahead of the one being computed.

    Args:
        batches: host batches; closed together with this generator if it is a generator itself.
        put: starts the transfer of a batch and returns at once, such as `jax.device_put` with
            shardings bound.
        size: batches ahead; 0 transfers each one only when it is asked for.
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


def _assemble_step(schedule: Schedule, assemble: Callable[[BatchLayout], T], step: int) -> T:
    return assemble(schedule[step])
