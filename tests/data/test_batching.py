import dataclasses
import hashlib
import random
from collections import Counter

import pytest

from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.data.batching import (
    BatchRules,
    UtteranceSize,
    epoch_layouts,
    layouts_in_order,
    select_fitting,
)
from fastwhisper_jax.distillation.collate import whisper_row_tokens
from fastwhisper_jax.errors import InputError

_JOINING = {"join_probability": 0.7}
_WINDOWS = Windows((4.0, 8.0, 30.0), margin_seconds=0.5)


def _sizes(count: int, groups: str = "a") -> list[UtteranceSize]:
    draw = random.Random(0)
    return [
        UtteranceSize(draw.uniform(0.3, 12.0), 4, draw.randrange(0, 60), draw.choice(groups))
        for _ in range(count)
    ]


def _rules(**changes) -> BatchRules:
    return BatchRules(
        **{"global_batch_size": 8, "buckets": (16, 32, 64), "windows": Windows((30.0,))} | changes
    )


def _row_tokens(sizes, row):
    return 4 + sum(sizes[index].label_tokens for index in row)


def _utterances(layouts):
    return [index for layout in layouts for row in layout.rows for index in row]


@pytest.mark.parametrize("joining", [{}, _JOINING, {"join_probability": 1.0}])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 203])
def test_each_utterance_occurs_exactly_once_an_epoch(count, joining):
    layouts = epoch_layouts(_sizes(count), _rules(**joining), epoch=3)
    assert Counter(_utterances(layouts)) == Counter(range(count))
    assert all(len(layout.rows) == 8 for layout in layouts)
    # Only the very last batch has empty rows, after its full ones.
    assert all(all(layout.rows) for layout in layouts[:-1])
    last = [bool(row) for row in layouts[-1].rows]
    assert last[0] and last == sorted(last, reverse=True)


def test_a_row_stands_in_the_shortest_bucket_that_holds_it():
    sizes = _sizes(203)
    layouts = epoch_layouts(sizes, _rules(), epoch=0)
    for layout in layouts:
        longest = max(_row_tokens(sizes, row) for row in layout.rows)
        assert layout.target_length == next(t for t in (16, 32, 64) if t >= longest)
    # Whole batches come first; what is left over fills less than one batch a bucket.
    assert sum(layout.rows[-1] == () for layout in layouts) <= 1
    assert {layout.target_length for layout in layouts} == {16, 32, 64}


def test_the_order_is_fixed_by_seed_and_epoch():
    sizes = _sizes(100)
    layouts = epoch_layouts(sizes, _rules(**_JOINING), epoch=1)
    assert layouts == epoch_layouts(sizes, _rules(**_JOINING), epoch=1)
    assert _utterances(layouts) != _utterances(epoch_layouts(sizes, _rules(**_JOINING), epoch=2))
    assert _utterances(layouts) != _utterances(
        epoch_layouts(sizes, _rules(seed=1, **_JOINING), epoch=1)
    )


def test_the_order_does_not_change_between_versions():
    sizes = [UtteranceSize(1.0, 4, 5)] * 8
    assert _utterances(epoch_layouts(sizes, _rules(seed=7), epoch=2)) == [6, 4, 0, 5, 7, 1, 3, 2]


def test_the_order_is_that_of_before_the_windows():
    """Bit for bit, where there is one window: runs of every version resume."""
    rules = _rules(
        seed=5, buckets=(16, 32, 64, 128), join_probability=0.5, timestamp_probability=0.5
    )
    digest = hashlib.sha256()
    for epoch in range(3):
        for layout in epoch_layouts(_sizes(203, groups="ab"), rules, epoch):
            found = layout.target_length, layout.rows, sorted(layout.timestamped)
            digest.update(repr(found).encode())
    known = "fa517d9a21cb64e97bb596e1c79041cc277d49ca878b5e83033e0329175b89cf"
    assert digest.hexdigest() == known


def _windows_needed(sizes, layout):
    """The shortest window for each row of a batch."""
    spoken = [sum(sizes[index].seconds for index in row) for row in layout.rows if row]
    return {_WINDOWS.shortest_for(seconds) for seconds in spoken}


@pytest.mark.parametrize("joining", [{}, _JOINING])
def test_a_row_stands_in_the_shortest_window_that_holds_it(joining):
    sizes = _sizes(403)
    layouts = epoch_layouts(sizes, _rules(windows=_WINDOWS, **joining), epoch=0)
    assert Counter(_utterances(layouts)) == Counter(range(403))
    for layout in layouts:
        assert layout.window_seconds == max(_windows_needed(sizes, layout))
    assert {layout.window_seconds for layout in layouts} == {4.0, 8.0, 30.0}


def test_a_batch_has_one_window_and_one_bucket_but_for_what_is_left_at_the_end():
    sizes, buckets = _sizes(403), (16, 32, 64)
    layouts = epoch_layouts(sizes, _rules(windows=_WINDOWS), epoch=0)
    pairs = [
        {
            (
                _WINDOWS.shortest_for(sizes[index].seconds),
                next(t for t in buckets if t >= _row_tokens(sizes, row)),
            )
            for row in layout.rows
            for index in row
        }
        for layout in layouts
    ]
    own = [
        found == {(layout.window_seconds, layout.target_length)}
        for layout, found in zip(layouts, pairs, strict=True)
    ]
    first_merged = own.index(False)
    # Of each of nine pairs fewer rows than a batch are left.
    left = [row for layout in layouts[first_merged:] for row in layout.rows if row]
    assert len(left) <= 9 * 7 and first_merged >= (403 - 9 * 7) // 8
    # Short windows are merged first, so that few of their rows are heard in longer ones.
    windows = [layout.window_seconds for layout in layouts[first_merged:]]
    assert windows == sorted(windows)


def test_longer_windows_are_drawn_as_often_as_asked_and_each_of_them():
    sizes, drawn = _sizes(2_000), Counter()
    rules = _rules(windows=_WINDOWS, longer_window_probability=0.4)
    # In batches of one row nothing is merged.
    alone = dataclasses.replace(rules, global_batch_size=1)
    layouts = epoch_layouts(sizes, alone, epoch=0)
    for layout in layouts:
        (needed,) = _windows_needed(sizes, layout)
        drawn[needed, layout.window_seconds] += 1
    assert drawn.keys() == {(4, 4), (4, 8), (4, 30), (8, 8), (8, 30), (30, 30)}
    of_shortest = drawn[4, 4] + drawn[4, 8] + drawn[4, 30]
    assert drawn[4, 8] / of_shortest == pytest.approx(0.2, abs=0.05)
    assert drawn[4, 30] / of_shortest == pytest.approx(0.2, abs=0.05)
    assert drawn[8, 30] / (drawn[8, 8] + drawn[8, 30]) == pytest.approx(0.4, abs=0.07)
    assert layouts == epoch_layouts(sizes, alone, epoch=0)
    assert layouts != epoch_layouts(sizes, dataclasses.replace(alone, seed=1), epoch=0)
    # Neither the order nor what is joined depends on them.
    never = dataclasses.replace(alone, longer_window_probability=0.0)
    assert _utterances(layouts) == _utterances(epoch_layouts(sizes, never, epoch=0))


def test_with_certainty_every_row_that_can_hears_more_than_it_needs():
    sizes = [UtteranceSize(2.0, 4, 5), UtteranceSize(6.0, 4, 5), UtteranceSize(20.0, 4, 5)]
    rules = _rules(windows=_WINDOWS, longer_window_probability=1.0, global_batch_size=1)
    heard = {layout.rows[0][0]: layout.window_seconds for layout in epoch_layouts(sizes, rules, 0)}
    assert heard[0] in (8.0, 30.0) and heard[1] == heard[2] == 30.0


def test_joined_utterances_fill_the_longest_window():
    sizes = [UtteranceSize(3.0, 4, 2)] * 40
    rules = _rules(join_probability=1.0, windows=_WINDOWS)
    layouts = epoch_layouts(sizes, rules, epoch=0)
    assert max(len(row) for layout in layouts for row in layout.rows) == 10


def test_joined_utterances_never_exceed_context_or_bucket_and_share_their_group():
    sizes = _sizes(300, groups="ab")
    layouts = epoch_layouts(sizes, _rules(join_probability=1.0), epoch=0)
    rows = [row for layout in layouts for row in layout.rows if row]
    for row in rows:
        seconds = sum(sizes[index].seconds for index in row)
        assert seconds <= 30.0
        assert _row_tokens(sizes, row) <= 64
        assert len({sizes[index].group for index in row}) == 1
    assert max(map(len, rows)) >= 3


def test_joined_utterances_are_adjacent_in_the_order_without_joining():
    sizes = [UtteranceSize(10.0, 4, 2)] * 16
    order = _utterances(epoch_layouts(sizes, _rules(), epoch=0))
    joined = epoch_layouts(sizes, _rules(join_probability=1.0), epoch=0)
    rows = [row for layout in joined for row in layout.rows if row]
    assert _utterances(joined) == order
    assert [len(row) for row in rows] == [3, 3, 3, 3, 3, 1]


def test_without_joining_each_row_is_one_utterance():
    layouts = epoch_layouts(_sizes(50), _rules(), epoch=0)
    assert all(len(row) <= 1 for layout in layouts for row in layout.rows)


def _timestamped(layouts):
    return {index for layout in layouts for index in layout.timestamped}


def test_rows_with_timestamps_are_as_many_as_asked_and_fixed_by_seed_and_epoch():
    sizes, rules = _sizes(400), _rules(timestamp_probability=0.3, buckets=(16, 64, 128))
    found = _timestamped(epoch_layouts(sizes, rules, epoch=1))
    assert 90 <= len(found) <= 150
    assert found == _timestamped(epoch_layouts(sizes, rules, epoch=1))
    assert found != _timestamped(epoch_layouts(sizes, rules, epoch=2))
    other = dataclasses.replace(rules, seed=1)
    assert found != _timestamped(epoch_layouts(sizes, other, epoch=1))


def test_timestamps_change_neither_the_order_nor_what_is_joined():
    sizes, rules = _sizes(200), _rules(join_probability=0.5, buckets=(400,))
    plain = epoch_layouts(sizes, rules, epoch=0)
    stamped = epoch_layouts(sizes, dataclasses.replace(rules, timestamp_probability=0.5), epoch=0)
    assert [layout.rows for layout in stamped] == [layout.rows for layout in plain]
    assert _timestamped(stamped) and not _timestamped(plain)


def test_buckets_count_the_two_timestamps_of_each_utterance():
    """A prompt of 4 loses one token, and each text of 4 gets two more."""
    sizes = [UtteranceSize(1.0, 4, 4)] * 8
    for utterances, length in ((1, 9), (2, 15), (3, 21)):
        longest = {"buckets": (length - 1, length), "windows": Windows((float(utterances),))}
        rules = _rules(
            join_probability=1.0,
            timestamp_probability=1.0,
            row_tokens=whisper_row_tokens,
            **longest,
        )
        layouts = epoch_layouts(sizes, rules, epoch=0)
        assert layouts[0].target_length == length
        assert max(map(len, layouts[0].rows)) == utterances


def test_a_row_that_timestamps_would_make_too_long_has_none():
    sizes = [UtteranceSize(1.0, 4, 12), UtteranceSize(1.0, 4, 11)]
    rules = _rules(timestamp_probability=1.0, buckets=(16,), row_tokens=whisper_row_tokens)
    (layout,) = epoch_layouts(sizes, rules, epoch=0)
    assert layout.timestamped == {1}


def test_what_does_not_fit_is_dropped_and_counted():
    sizes = [
        UtteranceSize(30.0, 4, 60),
        UtteranceSize(30.01, 4, 5),
        UtteranceSize(5.0, 4, 61),
        UtteranceSize(1.0, 4, 0),
    ]
    selection = select_fitting(sizes, (16, 64), 30.0)
    assert selection.kept == (0, 3)
    assert (selection.too_long_audio, selection.too_long_label, selection.dropped) == (1, 1, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"global_batch_size": 0},
        {"buckets": ()},
        {"buckets": (64, 32)},
        {"join_probability": 2},
        {"timestamp_probability": -0.1},
        {"longer_window_probability": 1.1},
    ],
)
def test_rules_that_cannot_hold_are_input_errors(changes):
    with pytest.raises(InputError, match=next(iter(changes))):
        _rules(**changes)


def test_in_order_each_utterance_has_its_own_row_in_the_given_order():
    sizes = _sizes(11)
    layouts = layouts_in_order(sizes, 4, (16, 64), Windows((30.0,)))
    assert [row for layout in layouts for row in layout.rows] == [(i,) for i in range(11)] + [()]
    for layout in layouts:
        assert layout.target_length >= max(_row_tokens(sizes, row) for row in layout.rows if row)


def test_in_order_the_longest_windows_come_first_and_none_are_mixed():
    """What a model says of an utterance does not depend on the others."""
    sizes = _sizes(50)
    layouts = layouts_in_order(sizes, 4, (16, 64), _WINDOWS)
    windows = [layout.window_seconds for layout in layouts]
    assert windows == sorted(windows, reverse=True) and set(windows) == {4.0, 8.0, 30.0}
    for layout in layouts:
        assert _windows_needed(sizes, layout) == {layout.window_seconds}
        (alone,) = layouts_in_order([sizes[layout.rows[0][0]]], 4, (16, 64), _WINDOWS)
        assert alone.window_seconds == layout.window_seconds
    for window in _WINDOWS.seconds:
        rows = [row for layout in layouts for row in layout.rows if layout.window_seconds == window]
        given = [i for i, size in enumerate(sizes) if _WINDOWS.shortest_for(size.seconds) == window]
        assert [index for row in rows for index in row] == given
    assert Counter(_utterances(layouts)) == Counter(range(50))
