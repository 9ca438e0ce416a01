"""Training and planning make the same pair of models of a recipe."""

import dataclasses
import gc
import weakref

import jax
import pytest

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
        ({"n_audio_ctx": 50}, r"context_seconds=none .* at most student\.path's 1$"),
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
        {"context_seconds": 30.0},
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
        {"context_seconds": 10.0},
    ],
)
def test_another_encoder_is_not_shared_and_a_cache_of_the_teachers_is_refused(tiny_dims, changes):
    teacher = dataclasses.replace(tiny_dims, n_audio_layer=6)
    student = StudentConfig(**changes)
    assert not student_spec(Config(student=student), teacher, teacher).shares_encoder
    with pytest.raises(InputError, match="needs the teacher's own encoder.*cache=none"):
        student_spec(Config(student=student, data=CACHED), teacher, teacher)


def test_a_student_of_the_teachers_own_folder_is_the_teachers(tiny_teacher):
    teacher = TeacherConfig(path=str(tiny_teacher))
    student = StudentConfig(path=f"{tiny_teacher}/", encoder_layers=1, context_seconds=30.0)
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
