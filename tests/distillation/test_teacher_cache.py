"""What is cached is found again by its content, whole, and is the same whoever computed it."""

import dataclasses
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from support import tiny_run as tiny

from fastwhisper_jax.data.batching import BatchLayout
from fastwhisper_jax.data.corpus import Corpus, UtteranceTokens
from fastwhisper_jax.data.loader import audio_inputs
from fastwhisper_jax.distillation import array_store
from fastwhisper_jax.distillation import fill_caches as caching
from fastwhisper_jax.distillation.array_store import ArrayStore, open_store
from fastwhisper_jax.distillation.run import make_batch_schedule
from fastwhisper_jax.distillation.teacher_cache import (
    EncoderCache,
    TeacherCache,
    audio_names,
    key_of,
    teacher_names,
)
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.options import ModelOptions

WINDOW = 0.06
LONGER = 0.1
SHAPE = (3, 4)


@pytest.fixture(scope="module")
def corpus(audio):
    return tiny.make_corpus(audio)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*.npy")}


def written_at(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.npy")}


def test_the_same_audio_at_two_paths_has_one_name(corpus, tmp_path):
    first, other = corpus.utterances[:2]
    copy = str(shutil.copy(first.audio, tmp_path / "elsewhere.wav"))
    moved = dataclasses.replace(first, id="moved", audio=copy)
    names = audio_names([first, other, moved])
    assert names[key_of(moved)] == names[key_of(first)] != names[key_of(other)]


@pytest.mark.parametrize("change", [{"offset": 0.05}, {"duration": 0.1}])
def test_another_stretch_of_the_same_audio_has_another_name(corpus, change):
    first = corpus.utterances[0]
    names = audio_names([first, dataclasses.replace(first, **change)])
    assert len(set(names.values())) == 2


@pytest.fixture
def load_cached(corpus, monkeypatch):
    """load_cached(config, teacher, runs_teacher) -> what such a run reads; nothing is computed."""
    monkeypatch.setattr(caching.EncoderCache, "missing", lambda *_: [])
    monkeypatch.setattr(caching.TeacherCache, "fill", lambda *_: None)
    mesh = tiny.make_mesh_of_one()
    data = tiny.make_data(tiny.make_config(), corpus, mesh)

    def load_cached(config, teacher=None, runs_teacher=True):
        pair = tiny.loaded_pair(config, teacher)
        layouts = make_batch_schedule(config, corpus, pair.student.windows)
        params = pair.teacher.params
        return caching.with_caches(config, pair, params, data, layouts, mesh, runs_teacher)

    return load_cached


@pytest.fixture
def folders_of(load_cached):
    """folders_of(config, teacher) -> names of the stores of encoder and teacher of such a run."""

    def folders(config, teacher=None):
        cache = load_cached(config, teacher).load_inputs.__self__
        return cache.student_inputs.__self__.store.folder.name, cache.store.folder.name

    return folders


def test_other_weights_or_another_dtype_share_nothing(folders_of, tmp_path):
    config, teacher = tiny.make_config(str(tmp_path)), tiny.teacher_model()
    encoder, decoder = folders_of(config, teacher)
    assert folders_of(config, tiny.teacher_model()) == (encoder, decoder)

    def changed(stack):
        params = jax.tree.map(np.array, teacher.params)
        params[stack]["norm"]["bias"][0] += 1e-6
        return dataclasses.replace(teacher, params=params)

    new_encoder, new_decoder = folders_of(config, changed("encoder"))
    assert new_encoder != encoder and new_decoder != decoder
    new_encoder, new_decoder = folders_of(config, changed("decoder"))
    assert new_encoder == encoder and new_decoder != decoder
    half = dataclasses.replace(
        config, teacher=dataclasses.replace(config.teacher, dtype="bfloat16")
    )
    assert folders_of(half, teacher)[0] != encoder


def test_teacher_states_of_audio_and_of_rounded_encoder_states_are_kept_apart(folders_of, tmp_path):
    """So a run trains on the same values, whichever run has filled the folder before."""
    rounded = tiny.make_config(str(tmp_path))
    student = dataclasses.replace(rounded.student, windows_seconds=(0.5, 1.0))
    of_audio = dataclasses.replace(rounded, student=student)
    (encoder, decoder), (same_encoder, other) = map(folders_of, (rounded, of_audio))
    assert same_encoder == encoder and other != decoder


def test_another_platform_or_precision_shares_nothing():
    """TPUs round products to bfloat16 where no precision is set."""
    params = {"encoder": {"bias": np.zeros(2, np.float32)}}

    def key(platform):
        devices = np.array([SimpleNamespace(platform=platform)])
        mesh = SimpleNamespace(size=1, shape={"tensor": 1}, devices=devices)
        return caching._encoder(params, tiny.TEACHER, "float32", params, mesh).key

    assert key("cpu") == key("cpu") != key("tpu")
    with jax.default_matmul_precision("highest"):
        precise = key("tpu")
    assert precise != key("tpu")


def test_a_run_that_shares_only_the_encoder_reads_only_its_store(load_cached, tmp_path):
    """Cross-entropy alone: the teacher's decoder is not asked."""
    cached = load_cached(tiny.make_config(str(tmp_path)), runs_teacher=False)
    assert isinstance(cached.load_inputs.__self__, EncoderCache)
    assert [path.name.split("-")[0] for path in tmp_path.iterdir()] == ["encoder"]


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    store = open_store(tmp_path, "key")
    save = np.save

    def save_half(file, array):
        save(file, array[: len(array) // 2])
        raise OSError("no space left on device")

    monkeypatch.setattr(array_store.np, "save", save_half)
    with pytest.raises(OSError, match="no space"):
        store.write("name", np.arange(10))
    assert store.absent(["name"]) == [True]
    monkeypatch.undo()
    store.write("name", np.arange(10))
    assert store.absent(["name", "other"]) == [False, True]
    np.testing.assert_array_equal(store.read("name"), np.arange(10))
    assert [path.name for path in store.folder.glob("*.npy")] == ["name.npy"]


def test_a_root_that_cannot_be_written_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match=r"data\.cache=.*/file' cannot be written"):
        open_store(tmp_path / "file", "key")


@pytest.fixture
def encoder_cache(corpus, tmp_path):
    store = open_store(tmp_path, "encoder")
    return EncoderCache(store, audio_names(corpus.utterances), SHAPE[1])


def heard(utterances, window=WINDOW):
    return [(utterance, window) for utterance in utterances]


def layout_of(window):
    return BatchLayout(target_length=12, rows=(), window_seconds=window)


class Encoder:
    """Stands for the model: an utterance's number in every place; remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, rows, window):
        self.asked.append([row[0].id if row else None for row in rows])
        values = [float(row[0].id) if row else np.nan for row in rows]
        shape = len(rows), round(50 * window), SHAPE[1]
        return np.broadcast_to(np.array(values)[:, None, None], shape)


def test_a_partly_filled_cache_is_completed_and_nothing_is_computed_again(corpus, encoder_cache):
    utterances = corpus.utterances
    encoder_cache.fill(heard(utterances[:6]), Encoder(), 4, lambda _: None)
    before = written_at(encoder_cache.store.folder)
    missing = encoder_cache.missing(heard(utterances))
    assert missing == heard(utterances[6:])
    encode, told = Encoder(), []
    encoder_cache.fill(missing, encode, 4, told.append)
    assert encode.asked == [["06", "07", "08", "09"], ["10", None, None, None]]
    assert told == [4, 1]
    assert encoder_cache.missing(heard(utterances)) == []
    after = written_at(encoder_cache.store.folder)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(utterances)


def test_a_stretch_that_occurs_twice_is_computed_once(corpus, encoder_cache):
    again = dataclasses.replace(corpus.utterances[0], id="again", text="other")
    assert encoder_cache.missing(heard([corpus.utterances[0], again])) == heard([again])


def test_each_window_that_an_utterance_is_heard_in_has_states_of_its_own(corpus, encoder_cache):
    first, other = corpus.utterances[:2]
    short = heard([first, other])
    encoder_cache.fill(short, Encoder(), 4, lambda _: None)
    long = heard([first], LONGER)
    assert encoder_cache.missing([*short, *long]) == long
    encode, told = Encoder(), []
    encoder_cache.fill([*heard([other], LONGER), *short, *long], encode, 2, told.append)
    assert encode.asked == [["00", "01"], ["01", "00"]]  # a batch has one window
    assert told == [2, 2]
    for window, positions in ((WINDOW, 3), (LONGER, 5)):
        states = encoder_cache.load_inputs([[first]], layout_of(window))["encoder_states"]
        assert states.shape == (1, positions, SHAPE[1])


def test_rows_hold_what_was_kept_and_empty_rows_nothing(corpus, encoder_cache):
    encoder_cache.fill(heard(corpus.utterances), Encoder(), 4, lambda _: None)
    rows = [[corpus.utterances[7]], [], [corpus.utterances[2]]]
    states = encoder_cache.load_inputs(rows, layout_of(WINDOW))["encoder_states"]
    assert states.dtype == np.float16 and states.shape == (3, *SHAPE)
    assert [set(row.flat) for row in states] == [{7.0}, {0.0}, {2.0}]


def fill_teacher_cache(corpus, encoder_cache, store):
    """Fills by a stand-in for the decoder: a state is its token; returns what it was asked."""
    names = teacher_names(corpus, encoder_cache.names)
    cache = TeacherCache(encoder_cache.load_inputs, store, names, 2)
    asked = []

    def decode(batch):
        asked.append(batch["input_ids"])
        return np.repeat(batch["input_ids"][..., None], 2, axis=-1).astype(np.float32)

    load_inputs = encoder_cache.load_inputs
    cache.fill(corpus, load_inputs, WINDOW, decode, 4, (8, 12), 60, lambda _: None)
    return cache, asked


def test_teacher_states_are_completed_and_what_is_there_is_left_alone(
    corpus, encoder_cache, tmp_path
):
    encoder_cache.fill(heard(corpus.utterances), Encoder(), 4, lambda _: None)
    store = open_store(tmp_path, "teacher")
    cache, asked = fill_teacher_cache(corpus, encoder_cache, store)
    assert len(asked) == 3
    whole, before = contents(store.folder), written_at(store.folder)
    lost = [cache.names[corpus.utterances[index]] for index in (4, 6)]
    for name in lost:
        (store.folder / f"{name}.npy").unlink()
    _, asked = fill_teacher_cache(corpus, encoder_cache, store)
    assert len(asked) == 1  # of three batches, the one that holds both
    assert contents(store.folder) == whole
    after = written_at(store.folder)
    assert {n for n in after if after[n] != before[n]} == {f"{name}.npy" for name in lost}
    assert fill_teacher_cache(corpus, encoder_cache, store)[1] == []


def test_two_texts_of_one_audio_have_teacher_states_of_their_own(corpus, encoder_cache, tmp_path):
    first = corpus.utterances[0]
    other = dataclasses.replace(first, id="other")
    tokens = corpus.tokens[0], UtteranceTokens((1, 2), (9, 8, 7, 6))
    both = Corpus((first, other), tokens, (corpus.sizes[0],) * 2, "")
    encoder_cache.fill(heard([first]), Encoder(), 4, lambda _: None)
    cache, _ = fill_teacher_cache(both, encoder_cache, open_store(tmp_path, "teacher"))
    assert len(contents(cache.store.folder)) == 2
    loaded = cache.load_inputs([[other], [], [first]], layout_of(WINDOW))
    states = loaded["teacher_states"][..., 0]
    np.testing.assert_array_equal(states[0], [1, 2, 9, 8, 7, 6, 0, 0, 0, 0, 0, 0])
    assert not states[1].any()
    np.testing.assert_array_equal(states[2, : 2 + len(tokens[0].label)], [1, 2, *tokens[0].label])
    np.testing.assert_array_equal(*loaded["encoder_states"][[0, 2]])


def test_bits_do_not_depend_on_what_else_stands_in_the_batch(corpus, tmp_path):
    """So that a cache filled in two goes, or by another run, makes the same training."""

    def filled(root, chosen):
        config = tiny.make_config(str(root))
        return tiny.make_data(config, chosen, tiny.make_mesh_of_one())

    data = filled(tmp_path / "whole", corpus)
    filled(tmp_path / "mixed", corpus.select([9, 2, 5]))
    filled(tmp_path / "mixed", corpus.select([10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]))
    whole = contents(tmp_path / "whole")
    assert len(whole) == 2 * len(corpus.utterances)
    assert contents(tmp_path / "mixed") == whole

    rows = [[utterance] for utterance in corpus.utterances[:4]]
    layout = BatchLayout(tiny.LENGTH, (), tiny.TEACHER.context_seconds)
    cached = data.load_inputs(rows, layout)
    log_mel = caching.log_mel_spectrogram(audio_inputs(rows, layout)["audio"], 8)
    encode = jax.jit(whisper.encode, static_argnums=(1, 3))
    encoder_states = encode(tiny.teacher_model().params, tiny.TEACHER, log_mel, ModelOptions())
    np.testing.assert_allclose(cached["encoder_states"], encoder_states, rtol=2e-3, atol=1e-3)


def test_reading_needs_no_more_than_a_name(tmp_path):
    array = np.arange(6, dtype=np.float16).reshape(2, 3)
    open_store(tmp_path, "key").write("name", array)
    read = ArrayStore(tmp_path / "key").read("name")
    np.testing.assert_array_equal(read, array)
    assert read.dtype == np.float16
