"""Training and planning make the same pair of models of a recipe."""

import dataclasses
import gc
import weakref

import jax
import pytest

from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.config import Config, DataConfig, StudentConfig, TeacherConfig
from fastwhisper_jax.distillation import run as runs
from fastwhisper_jax.distillation.pair import load_pair, student_spec
from fastwhisper_jax.distillation.shapes import model_shapes
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.training import loop
from fastwhisper_jax.training.sharding import make_mesh


@pytest.fixture
def folder_of(tmp_path, tiny_dims, write_teacher, make_params):
    """A function of changed sizes to the folder of a model that has them."""

    def folder_of(name, **sizes):
        dims = dataclasses.replace(tiny_dims, **sizes)
        return str(write_teacher(tmp_path / name, dims, make_params(dims)))

    return folder_of


def both(config):
    """What training loads, after a check that planning sees the same sizes and shapes."""
    pair = load_pair(config)
    planned, _ = model_shapes(config, make_mesh(1, 1, devices=jax.devices()[:1]))
    assert (planned.teacher_dims, planned.student) == (pair.teacher.dims, pair.student)
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), pair.student_params)
    assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), planned.student_params)
    return pair


def test_a_student_of_a_model_with_longer_windows_hears_the_teachers(folder_of):
    teacher = TeacherConfig(path=folder_of("teacher", n_audio_ctx=50))
    student = StudentConfig(path=folder_of("origin", n_audio_ctx=100, n_text_layer=3))
    pair = both(Config(teacher=teacher, student=student))
    assert (pair.student.dims.n_audio_ctx, pair.student.decoder_layers) == (50, (0, 2))
    assert pair.student_params["encoder"]["positions"].shape[0] == 50


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"n_vocab": 270}, "n_vocab is 262 in teacher"),
        ({"n_mels": 16}, "n_mels is 8 in teacher"),
        ({"n_audio_ctx": 50}, r"windows_seconds=\(30.0,\) must be at most student\.path's 1 s$"),
    ],
)
def test_a_student_of_a_model_that_does_not_fit_is_neither_trained_nor_planned(
    folder_of, tiny_teacher, sizes, words
):
    student = StudentConfig(path=folder_of("origin", **sizes))
    config = Config(teacher=TeacherConfig(path=str(tiny_teacher)), student=student)
    with pytest.raises(InputError, match=words):
        load_pair(config)
    with pytest.raises(InputError, match=words):
        model_shapes(config, make_mesh(1, 1, devices=jax.devices()[:1]))


def test_a_home_directory_is_found_by_both(folder_of, tmp_path, monkeypatch):
    folder_of("teacher")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert both(Config(teacher=TeacherConfig(path="~/teacher"))).student.shares_encoder


def test_of_a_folder_named_like_a_published_model_both_take_the_folder(
    folder_of, tmp_path, monkeypatch
):
    folder_of("openai/whisper-base")
    monkeypatch.chdir(tmp_path)
    both(Config(teacher=TeacherConfig(path="openai/whisper-base")))


CACHED = DataConfig(cache="cache")


@pytest.mark.parametrize(
    "same",
    [
        {},
        {"encoder_layers": 6},
        {"encoder_layers": (0, 1, 2, 3, 4, 5)},
        {"windows_seconds": (30.0,)},
        {"windows_seconds": (4.0, 30.0)},
        {"path": "openai/whisper-base"},
        {"path": "./openai/whisper-base"},
    ],
)
def test_the_encoder_is_shared_however_the_same_model_is_spelt(tiny_dims, same):
    teacher = dataclasses.replace(tiny_dims, n_audio_layer=6)
    config = Config(student=StudentConfig(**same), data=CACHED)
    assert student_spec(config, teacher, teacher).shares_encoder


@pytest.mark.parametrize(
    "changes",
    [
        {"frozen": ()},
        {"frozen": ("decoder",)},
        {"path": "other"},
        {"encoder_layers": 5},
        {"encoder_layers": (1, 2)},
        {"windows_seconds": (10.0,)},
    ],
)
def test_another_encoder_is_not_shared_and_may_be_cached(tiny_dims, changes):
    teacher = dataclasses.replace(tiny_dims, n_audio_layer=6)
    config = Config(student=StudentConfig(**changes), data=CACHED)
    assert not student_spec(config, teacher, teacher).shares_encoder


def windows_of(dims, windows, teacher=1500, origin=1500, **margin):
    """A student's windows and encoder positions; teacher and origin have so many positions."""
    config = Config(student=StudentConfig(windows_seconds=windows, **margin))
    models = (dataclasses.replace(dims, n_audio_ctx=n) for n in (teacher, origin))
    spec = student_spec(config, *models)
    return spec.windows, spec.dims.n_audio_ctx


def test_a_students_positions_are_those_of_its_longest_window(tiny_dims):
    named = windows_of(tiny_dims, (0.5, 4, 20), margin_seconds=1.5)
    assert named == (Windows((0.5, 4.0, 20.0), margin_seconds=1.5), 1000)
    assert windows_of(tiny_dims, None) == (Windows((30.0,)), 1500)


def test_the_windows_of_a_student_of_another_model_are_at_most_those_of_both(tiny_dims):
    assert windows_of(tiny_dims, None, teacher=500)[1] == 500
    assert windows_of(tiny_dims, (2.0, 5.0), teacher=500)[1] == 250
    assert windows_of(tiny_dims, (10.0,), origin=500)[1] == 500
    with pytest.raises(InputError, match=r"windows_seconds=\(2.0, 11.0\) .* the teacher's 10 s$"):
        windows_of(tiny_dims, (2.0, 11.0), teacher=500)
    with pytest.raises(InputError, match=r"windows_seconds=\(11.0,\) .* student\.path's 10 s$"):
        windows_of(tiny_dims, (11.0,), origin=500)


@pytest.mark.parametrize(
    ("windows", "words"),
    [
        ((31.0,), "at most the teacher's 30 s"),
        ((4.0, 30.5), "at most the teacher's 30 s"),
        ((0.25, 30.0), "must be whole encoder positions: multiples of 0.02 s"),
        ((4.0, 12.5), "must end with whole seconds"),
    ],
)
def test_windows_that_no_student_can_have_are_refused(tiny_dims, windows, words):
    with pytest.raises(InputError) as raised:
        windows_of(tiny_dims, windows)
    assert f"student.windows_seconds={windows}" in str(raised.value) and words in str(raised.value)


def test_a_student_of_the_teachers_own_folder_is_the_teachers(tiny_teacher):
    teacher = TeacherConfig(path=str(tiny_teacher))
    student = StudentConfig(path=f"{tiny_teacher}/", encoder_layers=1, windows_seconds=(30.0,))
    pair = both(Config(teacher=teacher, student=student))
    assert pair.student.shares_encoder and pair.origin == pair.teacher.folder


def test_no_model_is_left_on_the_host_when_training_begins(
    fastwhisper, tiny_recipe, tmp_path, monkeypatch
):
    loaded, begun = [], []

    def load_and_note(config):
        pair = load_pair(config)
        loaded.extend(map(weakref.ref, (pair, pair.teacher)))
        return pair

    def begin(run, run_dir):
        gc.collect()
        assert loaded and not any(reference() for reference in loaded)
        params, frozen_params = run.task.initial_params()
        begun.append(params.keys() | frozen_params.keys())

    monkeypatch.setattr(runs, "load_pair", load_and_note)
    monkeypatch.setattr(loop, "train", begin)
    done = fastwhisper("train", tiny_recipe, "--run-dir", tmp_path / "run")
    assert done.code == 0, done.err
    assert begun == [{"decoder"}]
