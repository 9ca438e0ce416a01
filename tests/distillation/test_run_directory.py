"""A run's config names files so that they are found from any folder."""

import dataclasses
import os

import pytest

from fastwhisper_jax.config.overrides import override
from fastwhisper_jax.config.recipe import load_recipe
from fastwhisper_jax.distillation.run_directory import (
    check_run_dir,
    read_config,
    resolved,
    write_config,
)
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.files import path_of


@pytest.fixture
def config(tiny_recipe, tmp_path, monkeypatch):
    """Names a folder and a manifest relative to the working folder."""
    (tmp_path / "teacher").mkdir()
    (tmp_path / "train.jsonl").write_text("")
    monkeypatch.chdir(tmp_path)
    given = ["--teacher.path", "teacher", "--student.path", "openai/whisper-tiny"]
    given += ["--data.train", "train.jsonl", "owner/dataset", "gs://bucket/speech"]
    return override(load_recipe(tiny_recipe), given)


def test_paths_become_absolute_and_other_names_stay(config, tmp_path):
    found = resolved(config)
    assert found.teacher.path == str(tmp_path / "teacher")
    assert found.student.path == "openai/whisper-tiny"
    train = (str(tmp_path / "train.jsonl"), "owner/dataset", "gs://bucket/speech")
    assert found.data.train == train and found.data.eval == ()
    assert found.data.cache is None
    assert resolved(found) == found


def test_the_path_of_a_named_eval_set_becomes_absolute(config, tmp_path):
    given = ("near=train.jsonl", "far=owner/dataset", "train.jsonl", "./a=b.jsonl")
    (tmp_path / "a=b.jsonl").write_text("")
    data = dataclasses.replace(config.data, eval=given)
    found = resolved(dataclasses.replace(config, data=data))
    path = str(tmp_path / "train.jsonl")
    expected = (f"near={path}", "far=owner/dataset", path, str(tmp_path / "a=b.jsonl"))
    assert found.data.eval == expected
    assert resolved(found) == found


def test_a_cache_that_is_yet_to_be_made_has_its_place(tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given, kept in (("cache", str(tmp_path / "cache")), ("gs://b/c", "gs://b/c")):
        config = override(load_recipe(tiny_recipe), ["--data.cache", given])
        assert resolved(config).data.cache == kept


def test_the_same_command_goes_on_in_a_run_whose_config_was_relative(config, tmp_path):
    run_dir = path_of(tmp_path / "run")
    write_config(run_dir, config)
    check_run_dir(run_dir, resolved(config))
    (tmp_path / "other").mkdir()
    other = override(config, ["--teacher.path", "other"])
    with pytest.raises(InputError, match=r"another config: teacher\.path="):
        check_run_dir(run_dir, resolved(other))


def test_a_run_is_exported_from_any_folder(
    fastwhisper, tiny_recipe, tiny_teacher, tiny_manifest, tmp_path, monkeypatch
):
    monkeypatch.chdir(tiny_teacher.parent)
    relative = ("--teacher.path", tiny_teacher.name, "--data.train")
    relative += (os.path.relpath(tiny_manifest), "--training.steps", "1")
    done = fastwhisper("train", tiny_recipe, "--run-dir", tmp_path / "run", *relative)
    assert done.code == 0, done.err
    stored = read_config(path_of(tmp_path / "run"))
    assert stored.teacher.path == str(tiny_teacher)
    assert stored.data.train == (str(tiny_manifest),)
    monkeypatch.chdir(tmp_path)
    done = fastwhisper("export", "run", "--out", "exported")
    assert done.code == 0, done.err
