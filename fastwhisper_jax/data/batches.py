"""Which utterances stand in which batch: pure planning, the same on every process.

One global order is fixed first, from (seed, epoch); utterances are joined and batches filled from
that order; only then does each process take its slice of each batch.
"""

import bisect
import dataclasses
import threading
from collections.abc import Iterator, Sequence

import numpy as np

from fastwhisper_jax.errors import InputError

# Durations in manifests are rounded decimals: a sum of them may exceed the context by this much.
_ROUNDING_SECONDS = 1e-6


@dataclasses.dataclass(frozen=True)
class UtteranceSize:
    """How much room an utterance takes.

    Attributes:
        seconds: length of its audio.
        prompt_tokens: tokens given to the decoder before the label.
        label_tokens: tokens of its transcript, without the end of text.
        group: only utterances of one group are joined (their prompt must be the same).
    """

    seconds: float
    prompt_tokens: int
    label_tokens: int
    group: str = ""


@dataclasses.dataclass(frozen=True)
class BatchRules:
    """How batches are made.

    Attributes:
        global_batch_size: rows of a batch over all processes.
        buckets: allowed target lengths T, rising; a row goes to the shortest that holds it.
        context_seconds: length of the encoder's window.
        seed: of the order.
        join_probability: chance that an utterance is appended to the one before it in the order,
            where both fit the context and the longest bucket; 0 joins nothing.
        gap_seconds: silence between joined utterances.
    """

    global_batch_size: int
    buckets: tuple[int, ...]
    context_seconds: float
    seed: int = 0
    join_probability: float = 0.0
    gap_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.global_batch_size < 1:
            raise InputError(f"global_batch_size={self.global_batch_size}; it must be at least 1")
        if not self.buckets or list(self.buckets) != sorted(set(self.buckets)):
            raise InputError(f"buckets={self.buckets}; they must rise and be one or more lengths")
        if not 0.0 <= self.join_probability <= 1.0:
            raise InputError(f"join_probability={self.join_probability}; it must lie in [0, 1]")


@dataclasses.dataclass(frozen=True)
class BatchPlan:
    """One global batch.

    Attributes:
        target_length: T, its bucket.
        rows: for each row, the utterances (indices) that are joined in it; () is an empty row.
    """

    target_length: int
    rows: tuple[tuple[int, ...], ...]

    def rows_of_process(self, index: int, count: int) -> tuple[tuple[int, ...], ...]:
        """The contiguous slice of rows that one of `count` processes loads.

        Raises:
            InputError: the batch does not divide over the processes.
        """
        if len(self.rows) % count:
            raise InputError(
                f"global_batch_size={len(self.rows)} does not divide over {count} processes; use "
                f"a multiple of {count}"
            )
        share = len(self.rows) // count
        return self.rows[index * share : (index + 1) * share]


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which utterances fit the model, and how many were dropped for which reason."""

    kept: tuple[int, ...]
    too_long_audio: int
    too_long_label: int

    @property
    def dropped(self) -> int:
        return self.too_long_audio + self.too_long_label


def select_fitting(
    sizes: Sequence[UtteranceSize], buckets: Sequence[int], context_seconds: float
) -> Selection:
    """Finds the utterances that fit the window and the longest bucket; the others are never cut.

    Args:
        sizes: of all utterances.
        buckets: target lengths T.
        context_seconds: length of the encoder's window.
    """
    kept, too_long_audio, too_long_label = [], 0, 0
    for index, size in enumerate(sizes):
        if size.seconds > context_seconds + _ROUNDING_SECONDS:
            too_long_audio += 1
        elif size.prompt_tokens + size.label_tokens > max(buckets):
            too_long_label += 1
        else:
            kept.append(index)
    return Selection(tuple(kept), too_long_audio, too_long_label)


def plan_epoch(sizes: Sequence[UtteranceSize], rules: BatchRules, epoch: int) -> list[BatchPlan]:
    """Plans one epoch, in which every utterance occurs exactly once.

    A batch holds rows of one bucket and is emitted when it is full. What is left in the buckets at
    the end is merged, short rows first; empty rows fill the very last batch.

    Args:
        sizes: of the utterances, all of which fit (see `select_fitting`).
        rules: how batches are made.
        epoch: which epoch; with `rules.seed` it fixes the order.
    """
    waiting: dict[int, list[tuple[int, ...]]] = {bucket: [] for bucket in rules.buckets}
    batches = []
    for row in _joined_rows(sizes, rules, epoch):
        bucket = _bucket(_row_tokens(sizes, row), rules.buckets)
        waiting[bucket].append(row)
        if len(waiting[bucket]) == rules.global_batch_size:
            batches.append(BatchPlan(bucket, tuple(waiting[bucket])))
            waiting[bucket] = []
    left = [row for bucket in rules.buckets for row in waiting[bucket]]
    return batches + _chunks(sizes, left, rules.buckets, rules.global_batch_size)


def plan_in_order(
    sizes: Sequence[UtteranceSize], batch_size: int, buckets: Sequence[int]
) -> list[BatchPlan]:
    """Plans one pass in the given order, each utterance in a row of its own (for evaluation).

    Args:
        sizes: of the utterances, all of which fit.
        batch_size: rows of a batch; empty rows fill the last one.
        buckets: target lengths T; a batch takes the shortest that holds all of its rows.
    """
    rows = [(index,) for index in range(len(sizes))]
    return _chunks(sizes, rows, buckets, batch_size)


class BatchSchedule:
    """The batches of a whole run: step k (from 0) is the batch that makes update k + 1.

    Args:
        sizes: of the utterances, all of which fit.
        rules: how batches are made.
        epochs: passes over the utterances; or
        steps: number of batches, over as many epochs as they need. Exactly one is given.
    """

    def __init__(
        self,
        sizes: Sequence[UtteranceSize],
        rules: BatchRules,
        *,
        epochs: int | None = None,
        steps: int | None = None,
    ) -> None:
        if (epochs is None) == (steps is None):
            raise ValueError("give either epochs or steps")
        if not sizes:
            raise InputError(
                "no utterance is left to train on; at least one must fit the context and the "
                "longest bucket: lengthen them, or check the data"
            )
        self._sizes = sizes
        self._rules = rules
        self._lock = threading.Lock()
        self._ends = [0]  # _ends[e]: number of batches in the epochs before e
        self._planned: dict[int, list[BatchPlan]] = {}
        if steps is not None:
            self._length = steps
        else:
            assert epochs is not None
            self._length = self._end_of_epoch(epochs)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, step: int) -> BatchPlan:
        if not 0 <= step < self._length:
            raise IndexError(f"step {step} of {self._length}")
        epoch, index = self.position(step)
        with self._lock:
            return self._plan(epoch)[index]

    def position(self, step: int) -> tuple[int, int]:
        """Epoch and place within it of a step's batch."""
        while self._ends[-1] <= step:
            self._end_of_epoch(len(self._ends))
        epoch = bisect.bisect_right(self._ends, step) - 1
        return epoch, step - self._ends[epoch]

    def _end_of_epoch(self, epochs: int) -> int:
        # Epochs differ in length when utterances are joined, so each is planned once to count it.
        with self._lock:
            while len(self._ends) <= epochs:
                self._ends.append(self._ends[-1] + len(self._plan(len(self._ends) - 1)))
            return self._ends[epochs]

    def _plan(self, epoch: int) -> list[BatchPlan]:
        if epoch not in self._planned:
            # Prefetching threads may stand on both sides of an epoch's end: keep two.
            self._planned = {e: p for e, p in self._planned.items() if abs(e - epoch) <= 1}
            self._planned[epoch] = plan_epoch(self._sizes, self._rules, epoch)
        return self._planned[epoch]


def _joined_rows(
    sizes: Sequence[UtteranceSize], rules: BatchRules, epoch: int
) -> Iterator[tuple[int, ...]]:
    # Raw bits of a seeded PCG64 are fixed by NumPy for good; Generator.permutation is not.
    bits = np.random.PCG64(np.random.SeedSequence([rules.seed, epoch]))
    order = np.argsort(bits.random_raw(len(sizes)), kind="stable").tolist()
    joins = (bits.random_raw(len(sizes)) / 2.0**64 < rules.join_probability).tolist()
    row: tuple[int, ...] = ()
    for index, join in zip(order, joins, strict=True):
        if row and join and _fits(sizes, (*row, index), rules):
            row = (*row, index)
            continue
        if row:
            yield row
        row = (index,)
    if row:
        yield row


def _fits(sizes: Sequence[UtteranceSize], row: tuple[int, ...], rules: BatchRules) -> bool:
    seconds = sum(sizes[i].seconds for i in row) + rules.gap_seconds * (len(row) - 1)
    return (
        sizes[row[0]].group == sizes[row[-1]].group
        and seconds <= rules.context_seconds + _ROUNDING_SECONDS
        and _row_tokens(sizes, row) <= rules.buckets[-1]
    )


def _row_tokens(sizes: Sequence[UtteranceSize], row: tuple[int, ...]) -> int:
    if not row:
        return 0
    return sizes[row[0]].prompt_tokens + sum(sizes[index].label_tokens for index in row)


def _bucket(tokens: int, buckets: Sequence[int]) -> int:
    return buckets[bisect.bisect_left(buckets, tokens)]


def _chunks(
    sizes: Sequence[UtteranceSize],
    rows: Sequence[tuple[int, ...]],
    buckets: Sequence[int],
    batch_size: int,
) -> list[BatchPlan]:
    plans = []
    for start in range(0, len(rows), batch_size):
        chunk = tuple(rows[start : start + batch_size])
        longest = max(_row_tokens(sizes, row) for row in chunk)
        padded = chunk + ((),) * (batch_size - len(chunk))
        plans.append(BatchPlan(_bucket(longest, buckets), padded))
    return plans
