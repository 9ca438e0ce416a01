"""Which utterances are in which batch: a pure function, the same on every process.

(seed, epoch) fixes one global order. Utterances are joined and batches filled in that order. Only
then does each process take its slice of each batch.
"""

import bisect
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fastwhisper_jax.audio.windows import ROUNDING_SECONDS, Windows
from fastwhisper_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class UtteranceSize:
    """How long an utterance is, as audio and as tokens.

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


def row_tokens(row: Sequence[UtteranceSize], is_timestamped: bool) -> int:
    """How many tokens a row of joined utterances takes: one prompt, then all labels."""
    return row[0].prompt_tokens + sum(size.label_tokens for size in row)


@dataclasses.dataclass(frozen=True)
class BatchRules:
    """How batches are made.

    Attributes:
        global_batch_size: rows of a batch over all processes.
        buckets: allowed target lengths T, rising; a row goes to the shortest that holds it.
        windows: the encoder's windows; a row goes to the shortest that holds it.
        seed: of the order.
        join_probability: chance that an utterance is appended to the one before it in the order,
            if both fit the longest window and the longest bucket; 0 joins nothing.
        timestamp_probability: chance that a row's label has timestamps, if they fit the longest
            bucket.
        longer_window_probability: chance that a row goes to a longer window than it needs.
        row_tokens: how many tokens a row takes, without or with timestamps.
    """

    global_batch_size: int
    buckets: tuple[int, ...]
    windows: Windows
    seed: int = 0
    join_probability: float = 0.0
    timestamp_probability: float = 0.0
    longer_window_probability: float = 0.0
    row_tokens: Callable[[Sequence[UtteranceSize], bool], int] = row_tokens

    def __post_init__(self) -> None:
        if self.global_batch_size < 1:
            raise InputError(f"global_batch_size={self.global_batch_size}; it must be at least 1")
        if not self.buckets or list(self.buckets) != sorted(set(self.buckets)):
            raise InputError(f"buckets={self.buckets}; they must rise and be one or more lengths")
        for name in (
            "join_probability",
            "timestamp_probability",
            "longer_window_probability",
        ):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"{name}={getattr(self, name)}; it must lie in [0, 1]")


@dataclasses.dataclass(frozen=True)
class BatchLayout:
    """One global batch.

    Attributes:
        target_length: T, its bucket.
        rows: for each row, the utterances (indices) that are joined in it; () is an empty row.
        window_seconds: the encoder's window for all rows.
        timestamped: the first utterance of each row whose label has timestamps.
    """

    target_length: int
    rows: tuple[tuple[int, ...], ...]
    window_seconds: float
    timestamped: frozenset[int] = frozenset()


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
        if size.seconds > context_seconds + ROUNDING_SECONDS:
            too_long_audio += 1
        elif size.prompt_tokens + size.label_tokens > max(buckets):
            too_long_label += 1
        else:
            kept.append(index)
    return Selection(tuple(kept), too_long_audio, too_long_label)


def epoch_layouts(
    sizes: Sequence[UtteranceSize], rules: BatchRules, epoch: int
) -> list[BatchLayout]:
    """Lays out one epoch, in which every utterance occurs exactly once.

    All rows of a batch have the same window and the same bucket, and a batch is complete when it is
    full. Rows that are left at the end are merged, short ones first. Empty rows fill the last
    batch.

    Args:
        sizes: all utterances, each of which fits (see `select_fitting`).
        rules: how batches are made.
        epoch: which epoch; it fixes the order together with `rules.seed`.
    """
    waiting: dict[tuple[float, int], list[_Row]] = {
        pair: [] for pair in itertools.product(rules.windows.seconds, rules.buckets)
    }
    layouts = []
    for row in _joined_rows(sizes, rules, epoch):
        rows = waiting[row.window_seconds, _bucket(row.tokens, rules.buckets)]
        rows.append(row)
        if len(rows) == rules.global_batch_size:
            layouts.append(_layout(rows, rules.buckets, rules.global_batch_size))
            rows.clear()
    left = list(itertools.chain.from_iterable(waiting.values()))
    return layouts + _chunks(left, rules.buckets, rules.global_batch_size)


def layouts_in_order(
    sizes: Sequence[UtteranceSize], batch_size: int, buckets: Sequence[int], windows: Windows
) -> list[BatchLayout]:
    """Lays out one pass, each utterance in a row of its own (for evaluation).

    The longest windows come first. Within a window the order is the given one. So what a model says
    of an utterance does not depend on the others.

    Args:
        sizes: all utterances, each of which fits.
        batch_size: rows of a batch; empty rows fill the last batch of each window.
        buckets: target lengths T; a batch takes the shortest that holds all of its rows.
        windows: the encoder's windows; an utterance goes to the shortest that holds it.
    """
    rows: dict[float, list[_Row]] = {seconds: [] for seconds in reversed(windows.seconds)}
    for index, size in enumerate(sizes):
        window = windows.shortest_for(size.seconds)
        rows[window].append(_Row((index,), row_tokens([size], False), window))
    return [
        layout for of_window in rows.values() for layout in _chunks(of_window, buckets, batch_size)
    ]


class _Row(NamedTuple):
    """Utterances that are joined, their tokens, window, and whether their label has timestamps."""

    indices: tuple[int, ...]
    tokens: int
    window_seconds: float
    is_timestamped: bool = False


def _joined_rows(sizes: Sequence[UtteranceSize], rules: BatchRules, epoch: int) -> Iterator[_Row]:
    # Raw bits of a seeded PCG64 are fixed by NumPy for good; Generator.permutation is not.
    bits = np.random.PCG64(np.random.SeedSequence([rules.seed, epoch]))
    order = np.argsort(bits.random_raw(len(sizes)), kind="stable").tolist()
    joins = (bits.random_raw(len(sizes)) / 2.0**64 < rules.join_probability).tolist()
    stamps = (bits.random_raw(len(sizes)) / 2.0**64 < rules.timestamp_probability).tolist()
    longer = bits.random_raw(len(sizes)) / 2.0**64

    def make_row(indices: tuple[int, ...], is_timestamped: bool) -> _Row:
        joined = [sizes[index] for index in indices]
        tokens = rules.row_tokens(joined, is_timestamped)
        window = rules.windows.shortest_for(sum(size.seconds for size in joined))
        return _Row(indices, tokens, _window(window, longer[indices[0]], rules), is_timestamped)

    row: _Row | None = None
    for index, join, stamp in zip(order, joins, stamps, strict=True):
        if row is not None and join:
            joined = make_row((*row.indices, index), row.is_timestamped)
            if _fits(sizes, joined, rules):
                row = joined
                continue
        if row is not None:
            yield row
        row = make_row((index,), stamp)
        if row.tokens > rules.buckets[-1]:
            row = make_row((index,), False)
    if row is not None:
        yield row


def _fits(sizes: Sequence[UtteranceSize], row: _Row, rules: BatchRules) -> bool:
    joined = [sizes[index] for index in row.indices]
    seconds = sum(size.seconds for size in joined)
    return (
        joined[0].group == joined[-1].group
        and seconds <= rules.windows.longest + ROUNDING_SECONDS
        and row.tokens <= rules.buckets[-1]
    )


def _window(shortest: float, draw: float, rules: BatchRules) -> float:
    """The window of a row: the shortest that holds it, or a longer one, as the draw says.

    Args:
        shortest: the shortest window that holds the row.
        draw: uniform in [0, 1).
        rules: how batches are made.
    """
    longer = [window for window in rules.windows.seconds if window > shortest]
    if not longer or draw >= rules.longer_window_probability:
        return shortest
    return longer[int(draw / rules.longer_window_probability * len(longer))]


def _bucket(tokens: int, buckets: Sequence[int]) -> int:
    return buckets[bisect.bisect_left(buckets, tokens)]


def _chunks(rows: Sequence[_Row], buckets: Sequence[int], batch_size: int) -> list[BatchLayout]:
    layouts = []
    for start in range(0, len(rows), batch_size):
        layouts.append(_layout(rows[start : start + batch_size], buckets, batch_size))
    return layouts


def _layout(rows: Sequence[_Row], buckets: Sequence[int], batch_size: int) -> BatchLayout:
    """A batch of these rows, filled up with empty ones, in the longest of their windows."""
    return BatchLayout(
        target_length=_bucket(max(row.tokens for row in rows), buckets),
        rows=(*(row.indices for row in rows), *[()] * (batch_size - len(rows))),
        window_seconds=max(row.window_seconds for row in rows),
        timestamped=frozenset(row.indices[0] for row in rows if row.is_timestamped),
    )
