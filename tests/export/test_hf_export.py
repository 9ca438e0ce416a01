"""An export is complete or absent, holds what was given, and never deletes other files."""

import dataclasses
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from flax import serialization

from fastwhisper_jax.audio.windows import Windows, window_positions
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.export import hf_export as export
from fastwhisper_jax.export.hf_export import check_target, export_student
from fastwhisper_jax.export.hf_load import load_model
from fastwhisper_jax.export.model_card import CardFacts
from fastwhisper_jax.export.student_configs import student_alignment_heads
from fastwhisper_jax.models.student import student_dimensions, student_params
from fastwhisper_jax.models.whisper import hf_names

FACTS = CardFacts(
    "someone/teacher", encoder_layers=(0, 1), decoder_layers=(0, 3), windows=Windows((2.0,))
)


def make_student(params, dims, facts=FACTS):
    layers = facts.encoder_layers, facts.decoder_layers
    student = student_dimensions(dims, *layers, window_positions(facts.windows.longest))
    return student, student_params(params, student, *layers)


@pytest.fixture
def exported(teacher_folder, dims, params, tmp_path):
    student, weights = make_student(params, dims)
    target = tmp_path / "small-whisper"
    notes = export_student(target, student, weights, teacher_folder, FACTS)
    assert notes == (
        "the context is 2 s: faster-whisper and whisper.cpp need windows of 30 s and cannot run"
        " this model",
    )
    return target


def read(folder, name):
    return json.loads((folder / name).read_text())


def test_export_reread_equals_what_was_exported_bit_for_bit(exported, dims, params):
    student, weights = make_student(params, dims)
    loaded = load_model(exported)
    assert loaded.dims == student
    assert jax.tree.structure(loaded.params) == jax.tree.structure(weights)
    assert jax.tree.all(jax.tree.map(np.array_equal, loaded.params, weights))


def test_export_holds_the_files_of_the_contract_and_nothing_else(exported):
    assert {file.name for file in exported.iterdir()} == {
        "README.md",
        "added_tokens.json",
        "config.json",
        "flax_model.msgpack",
        "generation_config.json",
        "merges.txt",
        "model.safetensors",
        "normalizer.json",
        "preprocessor_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    }
    assert [path.name for path in exported.parent.iterdir() if path.name.startswith(".")] == []
    assert {file.stat().st_mode & 0o444 for file in exported.iterdir()} == {0o444}


def test_safetensors_say_pytorch_and_leave_the_tied_projection_out(exported):
    with safetensors.safe_open(exported / "model.safetensors", framework="np") as file:
        assert file.metadata()["format"] == "pt"
        assert "proj_out.weight" not in file.keys()


def test_flax_file_holds_the_same_values(exported, dims, params):
    student, weights = make_student(params, dims)
    tree = serialization.msgpack_restore((exported / "flax_model.msgpack").read_bytes())
    assert list(tree) == ["model"]
    assert sorted(tree["model"]["decoder"]["layers"]) == ["0", "1"]
    expected = hf_names.flax_tree_from_params(weights, student)
    assert jax.tree.all(jax.tree.map(np.array_equal, tree, expected))


def test_configs_are_the_teachers_with_the_students_sizes(exported, teacher_folder):
    teacher, student = (read(folder, "config.json") for folder in (teacher_folder, exported))
    changed = {key for key in teacher if student.get(key) != teacher[key]}
    assert changed == {"decoder_layers", "torch_dtype", "transformers_version"}
    assert (student["decoder_layers"], student["torch_dtype"]) == (2, "float32")
    assert read(exported, "preprocessor_config.json")["chunk_length"] == 2
    assert read(exported, "preprocessor_config.json")["n_samples"] == 32_000


def test_code_of_a_teacher_is_not_inherited(teacher_folder, dims, params, tmp_path):
    config = read(teacher_folder, "config.json") | {"auto_map": {"AutoModel": "evil.Model"}}
    (teacher_folder / "config.json").write_text(json.dumps(config))
    student, weights = make_student(params, dims)
    export_student(tmp_path / "out", student, weights, teacher_folder, FACTS)
    assert "auto_map" not in read(tmp_path / "out", "config.json")


def test_alignment_heads_move_with_the_layers_that_were_kept(exported):
    assert read(exported, "generation_config.json")["alignment_heads"] == [[1, 0], [1, 1]]


@pytest.mark.parametrize(
    "decoder_layers, expected", [((0,), [[0, 0], [0, 1]]), ((0, 0), [[1, 0], [1, 1]])]
)
def test_without_alignment_heads_of_the_teacher_all_heads_of_the_upper_half_are_used(
    decoder_layers, expected, teacher_folder, dims, params, tmp_path
):
    facts = dataclasses.replace(FACTS, decoder_layers=decoder_layers)
    student, weights = make_student(params, dims, facts)
    notes = export_student(tmp_path / "out", student, weights, teacher_folder, facts)
    assert read(tmp_path / "out", "generation_config.json")["alignment_heads"] == expected
    assert "word timestamps use all heads of the upper layers" in notes[-1]
    assert notes[-1][1:] in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("named", [None, []])
def test_the_note_says_when_a_model_names_no_alignment_heads(named, dims):
    heads, note = student_alignment_heads({"alignment_heads": named}, (0, 3), dims)
    assert heads[0][0] == dims.n_text_layer // 2
    assert note.startswith(
        "the generation_config.json of the model that this one was initialised from names"
    )
    assert "names no alignment heads: word timestamps use all heads" in note


@pytest.mark.parametrize(
    "named, expected, note",
    [
        ([[3, 1], [3, 2], [0, -1]], [[1, 1]], "[[3, 2], [0, -1]], [layer, head], but its layers"),
        ([[3, 7]], [[1, 0], [1, 1]], "none of the alignment heads of the model that this one was"),
    ],
    ids=["others remain", "no other"],
)
def test_alignment_heads_that_no_layer_has_are_left_out_and_reported(
    named, expected, note, teacher_folder, dims, params, tmp_path
):
    generation = read(teacher_folder, "generation_config.json") | {"alignment_heads": named}
    (teacher_folder / "generation_config.json").write_text(json.dumps(generation))
    student, weights = make_student(params, dims)
    notes = export_student(tmp_path / "out", student, weights, teacher_folder, FACTS)
    assert read(tmp_path / "out", "generation_config.json")["alignment_heads"] == expected
    assert "have 2 heads, counted from 0: those are left out" in notes[-1]
    assert note in notes[-1]
    assert notes[-1][1:] in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_export_holds_the_nearest_values_in_both_files(
    dtype, teacher_folder, dims, params, tmp_path
):
    student, weights = make_student(params, dims)
    target = tmp_path / "out"
    export_student(target, student, weights, teacher_folder, FACTS, dtype)
    nearest = jax.tree.map(lambda leaf: leaf.astype(jnp.dtype(dtype)), weights)
    upcast = jax.tree.map(lambda leaf: leaf.astype(np.float32), nearest)
    assert jax.tree.all(jax.tree.map(np.array_equal, load_model(target).params, upcast))
    tree = serialization.msgpack_restore((target / "flax_model.msgpack").read_bytes())
    assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype(dtype)}
    expected = hf_names.flax_tree_from_params(nearest, student)
    assert jax.tree.all(jax.tree.map(np.array_equal, tree, expected))
    with safetensors.safe_open(target / "model.safetensors", framework="np") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}
    assert kinds == {{"bfloat16": "BF16", "float16": "F16"}[dtype]}
    assert read(target, "config.json")["torch_dtype"] == dtype
    assert f"Its weights are {dtype}." in (target / "README.md").read_text()


def test_weights_too_large_for_the_dtype_are_refused_and_nothing_is_written(
    teacher_folder, dims, params, tmp_path
):
    student, weights = make_student(params, dims)
    huge = jax.tree.map(lambda leaf: 1e6 * leaf, weights)
    with pytest.raises(InputError, match="beyond float16's largest number, 65504"):
        export_student(tmp_path / "out", student, huge, teacher_folder, FACTS, "float16")
    assert not (tmp_path / "out").exists()


def test_tokenizer_files_are_the_teachers_byte_for_byte(exported, teacher_folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (exported / name).read_bytes() == (teacher_folder / name).read_bytes()


def test_tokenizer_files_that_the_teacher_lacks_are_derived(exported):
    vocabulary, added = read(exported, "vocab.json"), read(exported, "added_tokens.json")
    assert sorted({**vocabulary, **added}.values()) == list(range(262))
    assert added["<|startoftranscript|>"] == 258
    special = read(exported, "special_tokens_map.json")["additional_special_tokens"]
    assert special == list(added)
    assert (exported / "merges.txt").read_text().splitlines() == ["#version: 0.2", "h e"]
    assert read(exported, "normalizer.json")["colour"] == "color"


def test_tokenizer_files_of_the_teacher_take_precedence_over_derived_ones(
    teacher_folder, dims, params, tmp_path
):
    (teacher_folder / "vocab.json").write_bytes(b'{"own":   1}')
    student, weights = make_student(params, dims)
    export_student(tmp_path / "out", student, weights, teacher_folder, FACTS)
    assert (tmp_path / "out" / "vocab.json").read_bytes() == b'{"own":   1}'


def test_a_shorter_context_is_written_everywhere_and_reported(
    teacher_folder, dims, params, tmp_path
):
    facts = dataclasses.replace(FACTS, windows=Windows((1.0,)))
    student, weights = make_student(params, dims, facts)
    target = tmp_path / "out"
    notes = export_student(target, student, weights, teacher_folder, facts)
    assert "the context is 1 s" in notes[0]
    assert read(target, "config.json")["max_source_positions"] == 50
    assert read(target, "preprocessor_config.json")["chunk_length"] == 1
    assert "hears at most 1 seconds at a time" in (target / "README.md").read_text()
    loaded = load_model(target)
    assert (loaded.dims, loaded.windows) == (student, facts.windows)


def test_windows_are_named_and_the_longest_ones_positions_are_kept(
    teacher_folder, dims, params, tmp_path
):
    windows = Windows((0.5, 1.0, 2.0), margin_seconds=0.25)
    facts = dataclasses.replace(FACTS, windows=windows)
    student, weights = make_student(params, dims, facts)
    target = tmp_path / "out"
    export_student(target, student, weights, teacher_folder, facts)
    config = read(target, "config.json")
    assert config["fastwhisper_windows"] == {"seconds": [0.5, 1.0, 2.0], "margin_seconds": 0.25}
    assert config["max_source_positions"] == dims.n_audio_ctx == 100
    loaded = load_model(target)
    assert (loaded.dims, loaded.windows) == (student, windows)
    np.testing.assert_array_equal(
        loaded.params["encoder"]["positions"], params["encoder"]["positions"]
    )


def test_a_student_of_one_window_names_none_not_even_those_of_the_model_that_it_was_cut_from(
    exported, teacher_folder, dims, params, tmp_path
):
    assert "fastwhisper_windows" not in read(exported, "config.json")
    windows = {"fastwhisper_windows": {"seconds": [0.5, 2.0], "margin_seconds": 0.25}}
    config = read(teacher_folder, "config.json") | windows
    (teacher_folder / "config.json").write_text(json.dumps(config))
    student, weights = make_student(params, dims)
    export_student(tmp_path / "out", student, weights, teacher_folder, FACTS)
    assert "fastwhisper_windows" not in read(tmp_path / "out", "config.json")
    assert load_model(tmp_path / "out").windows == Windows((2.0,))


def test_context_of_a_fraction_of_a_second_is_refused(teacher_folder, dims, params, tmp_path):
    student, weights = make_student(params, dims)
    student = dataclasses.replace(student, n_audio_ctx=75)
    weights["encoder"]["positions"] = weights["encoder"]["positions"][:75]
    with pytest.raises(InputError, match="context of 1.5 s"):
        export_student(tmp_path / "out", student, weights, teacher_folder, FACTS)
    assert not (tmp_path / "out").exists()


def test_an_earlier_export_is_replaced_completely(exported, teacher_folder, dims, params):
    (teacher_folder / "normalizer.json").write_text("{}")
    student, weights = make_student(params, dims)
    doubled = jax.tree.map(lambda x: 2 * x, weights)
    export_student(exported, student, doubled, teacher_folder, FACTS)
    assert jax.tree.all(jax.tree.map(np.array_equal, load_model(exported).params, doubled))
    assert read(exported, "normalizer.json") == {}


def test_empty_folder_is_used(teacher_folder, dims, params, tmp_path):
    (tmp_path / "empty").mkdir()
    student, weights = make_student(params, dims)
    export_student(tmp_path / "empty", student, weights, teacher_folder, FACTS)
    assert load_model(tmp_path / "empty").dims == student


def test_a_model_of_another_origin_is_not_replaced(teacher_folder):
    before = {file.name: file.read_bytes() for file in teacher_folder.iterdir()}
    with pytest.raises(InputError, match="holds a model of another origin"):
        check_target(teacher_folder)
    assert {file.name: file.read_bytes() for file in teacher_folder.iterdir()} == before


def test_an_export_with_files_of_the_user_is_not_replaced(exported):
    (exported / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds notes.txt, which an export would delete"):
        check_target(exported)


def test_target_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file or a link"):
        check_target(tmp_path / "file")
    with pytest.raises(InputError, match="cannot be written"):
        check_target(tmp_path / "file" / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission_is_refused(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(InputError, match="cannot be written"):
        check_target(tmp_path / "closed" / "out")


def test_failed_write_leaves_nothing(monkeypatch, teacher_folder, dims, params, tmp_path):
    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "_write_weights", full_disk)
    student, weights = make_student(params, dims)
    with pytest.raises(InputError, match="No space left on device"):
        export_student(tmp_path / "out", student, weights, teacher_folder, FACTS)
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]


def test_failed_replacement_keeps_the_earlier_export(
    monkeypatch, exported, teacher_folder, dims, params
):
    before = (exported / "model.safetensors").read_bytes()
    student, weights = make_student(params, dims)

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "_write_weights", full_disk)
    with pytest.raises(InputError):
        export_student(exported, student, weights, teacher_folder, FACTS)
    assert (exported / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("error", [OSError(13, "Permission denied"), KeyboardInterrupt()])
@pytest.mark.parametrize("number, comes", [(1, "before"), (1, "after"), (2, "before")])
def test_a_replacement_that_is_stopped_between_its_renames_keeps_the_earlier_export(
    monkeypatch, exported, teacher_folder, dims, params, error, number, comes
):
    before = {file.name: file.read_bytes() for file in exported.iterdir()}
    beside = sorted(exported.parent.iterdir())
    student, weights = make_student(params, dims)
    rename, renamed = Path.rename, []

    def stopped(path, to):
        renamed.append(path)
        if len(renamed) == number and comes == "before":
            raise error
        new = rename(path, to)
        if len(renamed) == number:
            raise error
        return new

    monkeypatch.setattr(Path, "rename", stopped)
    with pytest.raises((InputError, KeyboardInterrupt)):
        export_student(exported, student, weights, teacher_folder, FACTS)
    assert {file.name: file.read_bytes() for file in exported.iterdir()} == before
    assert sorted(exported.parent.iterdir()) == beside


def test_teacher_without_tokenizer_is_refused(teacher_folder, dims, params, tmp_path):
    (teacher_folder / "tokenizer.json").unlink()
    student, weights = make_student(params, dims)
    with pytest.raises(InputError, match="neither tokenizer.json nor vocab.json"):
        export_student(tmp_path / "out", student, weights, teacher_folder, FACTS)
    assert not (tmp_path / "out").exists()
