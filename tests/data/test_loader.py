import functools
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
import soundfile

from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.data.batching import BatchLayout, BatchRules, UtteranceSize
from fastwhisper_jax.data.corpus import Corpus, UtteranceTokens
from fastwhisper_jax.data.loader import audio_inputs, prefetch_to_device, read_batches
from fastwhisper_jax.data.manifest import Utterance
from fastwhisper_jax.data.schedule import BatchSchedule
from fastwhisper_jax.distillation.collate import collate
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.models.whisper.tokens import decoder_arrays

_END = 9
WINDOW_SECONDS = 0.5


@pytest.fixture(scope="module")
def utterances(tmp_path_factory):
    """Twenty utterances of 0.01 s x (index + 1), each of one value."""
    folder = tmp_path_factory.mktemp("audio")
    made = []
    for index in range(20):
        path = str(folder / f"{index}.wav")
        samples = np.full(160 * (index + 1), (index + 1) / 100, np.float32)
        soundfile.write(path, samples, 16_000, subtype="FLOAT")
        made.append(Utterance(str(index), path, "x", duration=(index + 1) / 100))
    return made


@pytest.fixture(scope="module")
def tokens():
    return [UtteranceTokens((1, 2), (3,) * (index % 5)) for index in range(20)]


@pytest.fixture(scope="module")
def schedule(utterances, tokens):
    sizes = [
        UtteranceSize(u.duration, len(t.prompt), len(t.label))
        for u, t in zip(utterances, tokens, strict=True)
    ]
    rules = BatchRules(
        global_batch_size=4,
        buckets=(4, 8, 16),
        windows=Windows((WINDOW_SECONDS,)),
        join_probability=0.5,
    )
    return BatchSchedule(sizes, rules, epochs=3)


@pytest.fixture(scope="module")
def assemble(utterances, tokens):
    return functools.partial(
        collate,
        corpus=Corpus(tuple(utterances), tuple(tokens), (), ""),
        load_inputs=audio_inputs,
        end_of_text=_END,
    )


def _assert_equal(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def _prefetch_threads():
    return [t for t in threading.enumerate() if t.name.startswith("grain")]


def test_a_batch_has_the_shapes_and_dtypes_of_its_contract(assemble):
    batch = assemble(BatchLayout(8, ((0,), (4, 1), (), ()), WINDOW_SECONDS))
    assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
        "audio": ((4, 8_000), "float32"),
        "frames": ((4,), "int32"),
        "input_ids": ((4, 8), "int32"),
        "labels": ((4, 8), "int32"),
        "label_mask": ((4, 8), "float32"),
    }


def test_an_empty_row_is_silence_without_targets(assemble):
    batch = assemble(BatchLayout(8, ((0,), ()), WINDOW_SECONDS))
    assert not batch["audio"][1].any()
    assert batch["frames"].tolist() == [1, 0]
    assert not batch["label_mask"][1].any()
    assert (batch["input_ids"][1] == _END).all()


def test_joined_utterances_lie_back_to_back_with_their_labels_joined(utterances, tokens, assemble):
    batch = assemble(BatchLayout(16, ((4, 1),), WINDOW_SECONDS))
    expected = np.concatenate([np.full(800, 0.05, "f4"), np.full(320, 0.02, "f4")])
    np.testing.assert_array_equal(batch["audio"][0, :1_120], expected)
    assert not batch["audio"][0, 1_120:].any()
    assert batch["frames"].tolist() == [7]
    row = decoder_arrays((1, 2), tokens[4].label + tokens[1].label, 16, _END)
    for name, array in row._asdict().items():
        np.testing.assert_array_equal(batch[name][0], array)


def test_a_row_with_timestamps_says_when_each_utterance_is_spoken(utterances, tokens, assemble):
    """The prompt's last token, no timestamps, is 2; so 3 is 0.00 s, and 6 is 0.06 s."""
    batch = assemble(BatchLayout(16, ((3, 1), (1,)), WINDOW_SECONDS, frozenset({3})))
    row = decoder_arrays((1,), (3, *tokens[3].label, 5, 5, *tokens[1].label, 6), 16, _END)
    plain = decoder_arrays((1, 2), tokens[1].label, 16, _END)
    for name in ("input_ids", "labels", "label_mask"):
        np.testing.assert_array_equal(batch[name], [getattr(row, name), getattr(plain, name)])


def test_a_part_of_a_file_is_loaded_as_such(utterances):
    part = Utterance("p", utterances[9].audio, offset=0.02, duration=0.05)
    batch = audio_inputs([[part]], BatchLayout(8, (), WINDOW_SECONDS))
    assert int((batch["audio"][0] != 0).sum()) == 800


def test_a_batch_holds_the_audio_of_its_window(utterances):
    rows = [[utterances[3], utterances[1]], []]
    short, long = (audio_inputs(rows, BatchLayout(8, (), seconds)) for seconds in (0.08, 0.5))
    assert (short["audio"].shape, long["audio"].shape) == ((2, 1_280), (2, 8_000))
    np.testing.assert_array_equal(short["audio"], long["audio"][:, :1_280])
    assert not long["audio"][:, 1_280:].any()
    np.testing.assert_array_equal(short["frames"], long["frames"])


def test_the_shares_of_two_processes_tile_the_global_batch(schedule, assemble):
    for layout in schedule:
        whole = assemble(layout)
        middle = len(layout.rows) // 2
        halves = range(middle), range(middle, len(layout.rows))
        shares = [assemble(layout, local_rows=rows) for rows in halves]
        _assert_equal(whole, {n: np.concatenate([s[n] for s in shares]) for n in whole})


@pytest.mark.parametrize("threads", [1, 4])
def test_batches_come_in_order_as_if_assembled_one_by_one(schedule, assemble, threads):
    batches = list(read_batches(schedule, assemble, threads=threads))
    assert len(batches) == len(schedule)
    for batch, layout in zip(batches, schedule, strict=True):
        _assert_equal(batch, assemble(layout))


def test_starting_at_a_step_equals_continuing_from_it(schedule, assemble):
    batches = list(read_batches(schedule, assemble))
    for start in (1, len(schedule) - 1):
        later = list(read_batches(schedule, assemble, start_step=start))
        assert len(later) == len(schedule) - start
        for first, second in zip(later, batches[start:], strict=True):
            _assert_equal(first, second)
    assert list(read_batches(schedule, assemble, start_step=len(schedule))) == []


def test_what_replaces_audio_joins_the_batch(utterances, tokens):
    seen = []

    def cached(rows, layout):
        seen.append([[u.id for u in row] for row in rows])
        assert layout == wanted
        return {"encoder_states": np.zeros((len(rows), 3, 2), np.float16)}

    wanted = BatchLayout(8, ((4,), ()), WINDOW_SECONDS)
    batch = collate(wanted, Corpus(utterances, tokens, (), ""), cached, end_of_text=_END)
    assert batch.keys() == {"encoder_states", "input_ids", "labels", "label_mask"}
    assert seen == [[["4"], []]]


def test_threads_end_with_the_generator(schedule, assemble):
    batches = read_batches(schedule, assemble)
    next(batches)
    assert _prefetch_threads()
    batches.close()
    deadline = time.monotonic() + 5.0
    while _prefetch_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _prefetch_threads()


def test_no_thread_is_started_after_the_first_batches(schedule, assemble):
    batches = read_batches(schedule, assemble, threads=2)
    for _ in range(3):
        next(batches)
    before = {thread.ident for thread in _prefetch_threads()}
    for _ in range(5):
        next(batches)
    assert {thread.ident for thread in _prefetch_threads()} <= before
    batches.close()


def test_an_error_is_raised_at_its_step_as_it_is(schedule, assemble):
    def fails_at_third(layout):
        if layout == schedule[2]:
            raise InputError("this file is broken")
        return assemble(layout)

    batches = read_batches(schedule, fails_at_third)
    next(batches)
    next(batches)
    with pytest.raises(InputError) as caught:
        next(batches)
    assert str(caught.value) == "this file is broken"


@pytest.mark.parametrize("ending", ["pass", "raise SystemExit(3)", "next(batches); sys.exit(3)"])
def test_the_interpreter_ends_at_once_and_silently_with_batches_unread(ending):
    program = f"""
        import sys, time
        from fastwhisper_jax.data.batching import BatchLayout
        from fastwhisper_jax.data.loader import (prefetch_to_device, read_batches)

        def slow(layout):
            time.sleep(0.05)
            return {{}}

        layouts = [BatchLayout(8, ((0,),), 1.0)] * 1000
        batches = prefetch_to_device(read_batches(layouts, slow), lambda batch: batch)
        next(batches)
        {ending}
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == (0 if ending == "pass" else 3), done.stderr
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("size", [0, 1, 2, 50])
def test_prefetch_keeps_the_order_and_stays_ahead_by_its_size(size):
    put = []

    def remember(batch):
        put.append(batch)
        return batch

    for taken, batch in enumerate(prefetch_to_device(iter(range(10)), remember, size), start=1):
        assert batch == taken - 1
        assert len(put) == min(taken + size, 10)


def test_prefetch_closes_what_it_reads():
    closed = []

    def numbers():
        try:
            yield from range(10)
        finally:
            closed.append(True)

    batches = prefetch_to_device(numbers(), lambda batch: batch)
    next(batches)
    batches.close()
    assert closed == [True]
