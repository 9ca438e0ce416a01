"""A Hugging Face folder is read exactly, and its faults are reported all at once."""

import json
import math

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.export.hf_load import load_model, resolve_model


def refusal(folder) -> str:
    """The one-line error of loading a folder."""
    with pytest.raises(InputError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def change_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def test_a_loaded_model_equals_the_one_that_was_written(teacher_folder, dims, params):
    loaded = load_model(teacher_folder)
    assert loaded.dims == dims
    assert loaded.generation_config["suppress_tokens"] == [1, 2]
    assert jax.tree.all(jax.tree.map(np.array_equal, loaded.params, params))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_float_dtypes_become_float32(teacher_folder, params, dtype):
    def convert(tensors):
        tensors.update({name: tensor.astype(dtype) for name, tensor in tensors.items()})

    change_tensors(teacher_folder, convert)
    loaded = load_model(teacher_folder).params
    expected = jax.tree.map(lambda x: x.astype(dtype).astype(np.float32), params)
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {np.dtype(np.float32)}
    assert jax.tree.all(jax.tree.map(np.array_equal, loaded, expected))


def shard(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for number in (1, 2):
        file = f"model-{number:05d}-of-00002.safetensors"
        part = {name: tensors[name] for name in sorted(tensors)[number - 1 :: 2]}
        save_file(part, folder / file, {"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_sharded_weights_equal_one_file(teacher_folder, params):
    shard(teacher_folder)
    loaded = load_model(teacher_folder).params
    assert jax.tree.all(jax.tree.map(np.array_equal, loaded, params))


def test_absent_shard_is_named(teacher_folder):
    shard(teacher_folder)
    (teacher_folder / "model-00002-of-00002.safetensors").unlink()
    assert "lacks model-00002-of-00002.safetensors" in refusal(teacher_folder)


def test_tied_output_projection_in_the_file_is_accepted(teacher_folder):
    def tie(tensors):
        tensors["proj_out.weight"] = tensors["model.decoder.embed_tokens.weight"].copy()

    change_tensors(teacher_folder, tie)
    load_model(teacher_folder)


def test_generation_config_falls_back_to_config(teacher_folder):
    (teacher_folder / "generation_config.json").unlink()
    change_json(teacher_folder / "config.json", suppress_tokens=[7])
    generation_config = load_model(teacher_folder).generation_config
    assert generation_config["suppress_tokens"] == [7]
    assert generation_config["decoder_start_token_id"] == 258
    assert "d_model" not in generation_config


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"eos_token_id": None}, "eos_token_id is None, must be a token, 0 to 263, or several"),
        ({"eos_token_id": []}, "eos_token_id is []"),
        ({"eos_token_id": [257, 264]}, "eos_token_id is [257, 264]"),
        ({"suppress_tokens": [1, 264]}, "suppress_tokens holds 264, must hold tokens, 0 to 263"),
        ({"suppress_tokens": [-1]}, "suppress_tokens holds -1"),
        ({"begin_suppress_tokens": "x"}, "begin_suppress_tokens holds 'x'"),
        ({"prev_sot_token_id": 264}, "prev_sot_token_id is 264"),
        ({"alignment_heads": [[1, 0, 1]]}, "alignment_heads must hold pairs of integers"),
        ({"alignment_heads": [[0, "1"]]}, "alignment_heads must hold pairs of integers"),
        ({"alignment_heads": 3}, "alignment_heads must hold pairs of integers"),
    ],
)
def test_generation_config_that_cannot_be_used_is_refused(teacher_folder, changes, fault):
    file = teacher_folder / "generation_config.json"
    change_json(file, **changes)
    message = refusal(teacher_folder)
    assert message.startswith(f"{file} cannot be used: ") and fault in message


def test_all_faults_of_generation_config_are_in_one_line(teacher_folder):
    (teacher_folder / "generation_config.json").unlink()
    change_json(teacher_folder / "config.json", eos_token_id="x", suppress_tokens=[300])
    message = refusal(teacher_folder)
    assert f"{teacher_folder / 'config.json'} cannot be used: eos_token_id is 'x'" in message
    assert "; suppress_tokens holds 300" in message


@pytest.mark.parametrize(
    "changes",
    [
        {"eos_token_id": [257, 258]},
        {"suppress_tokens": None, "begin_suppress_tokens": []},
        {"prev_sot_token_id": None, "alignment_heads": None},
        {"alignment_heads": [[9, 0]]},  # as a published student inherits them
    ],
)
def test_generation_config_as_published_models_have_it_is_taken(teacher_folder, changes):
    change_json(teacher_folder / "generation_config.json", **changes)
    assert load_model(teacher_folder).generation_config.items() >= changes.items()


def test_all_faults_of_tensors_are_in_one_line_with_counts(teacher_folder):
    def spoil(tensors):
        for layer in range(4):
            del tensors[f"model.decoder.layers.{layer}.fc1.weight"]
        tensors["model.decoder.layers.9.fc1.weight"] = np.zeros(3, np.float32)
        tensors["model.encoder.conv1.bias"] = np.zeros(5, np.float32)
        tensors["model.encoder.conv2.bias"] = np.zeros(16, np.int8)

    change_tensors(teacher_folder, spoil)
    message = refusal(teacher_folder)
    assert "4 missing (model.decoder.layers.0.fc1.weight" in message
    assert "and 1 more" in message
    assert "1 unexpected (model.decoder.layers.9.fc1.weight)" in message
    assert "model.encoder.conv1.bias is (5,), must be (16,)" in message
    assert "model.encoder.conv2.bias is I8" in message


def test_truncated_file_is_named(teacher_folder):
    file = teacher_folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert f"{file} is damaged or truncated" in refusal(teacher_folder)


def test_empty_file_is_named(teacher_folder):
    (teacher_folder / "model.safetensors").write_bytes(b"")
    assert "model.safetensors is damaged" in refusal(teacher_folder)


def test_folder_without_weights(teacher_folder):
    (teacher_folder / "model.safetensors").unlink()
    assert "has no model.safetensors" in refusal(teacher_folder)


def test_pickled_weights_are_refused_with_the_way_to_convert(teacher_folder):
    (teacher_folder / "model.safetensors").rename(teacher_folder / "pytorch_model.bin")
    message = refusal(teacher_folder)
    assert "pytorch_model.bin" in message
    assert "save_pretrained" in message


def test_folder_without_config(teacher_folder):
    (teacher_folder / "config.json").unlink()
    assert "has no config.json" in refusal(teacher_folder)


def test_config_that_is_not_json(teacher_folder):
    (teacher_folder / "config.json").write_text("{")
    assert "config.json is not JSON" in refusal(teacher_folder)


def test_a_published_model_has_one_window(teacher_folder):
    assert load_model(teacher_folder).windows == Windows((2.0,))


def test_windows_are_read_as_they_are_named(teacher_folder):
    windows = {"seconds": [0.5, 1, 2], "margin_seconds": 0.1}
    change_json(teacher_folder / "config.json", fastwhisper_windows=windows)
    assert load_model(teacher_folder).windows == Windows((0.5, 1.0, 2.0), 0.1)
    # The longest may be shorter than what the encoder holds.
    change_json(teacher_folder / "config.json", fastwhisper_windows={"seconds": [0.5, 1.5]})
    assert load_model(teacher_folder).windows == Windows((0.5, 1.5))


@pytest.mark.parametrize(
    ("windows", "fault"),
    [
        ("short", "fastwhisper_windows.seconds=None and its margin must be numbers; export it"),
        ([0.5, 2.0], "must be numbers"),
        ({"margin_seconds": 0.5}, "seconds=None and its margin must be numbers"),
        ({"seconds": 2.0}, "seconds=2.0 and its margin must be numbers"),
        ({"seconds": ["2"]}, "seconds=['2'] and its margin must be numbers"),
        ({"seconds": [True, 2.0]}, "must be numbers"),
        ({"seconds": [1.0, math.inf]}, "must be numbers"),
        ({"seconds": [1.0, math.nan]}, "must be numbers"),
        ({"seconds": [2.0], "margin_seconds": -1}, "must be numbers"),
        ({"seconds": [2.0], "margin_seconds": None}, "must be numbers"),
        ({"seconds": []}, "seconds=[] must be ascending lengths above 0, in seconds"),
        ({"seconds": [2.0, 1.0]}, "seconds=[2.0, 1.0] must be ascending"),
        ({"seconds": [0.25, 2.0]}, "must be whole encoder positions: multiples of 0.02 s"),
        ({"seconds": [1.0, 4.0]}, "seconds=[1.0, 4.0] must be at most the encoder's 2 s"),
    ],
)
def test_windows_that_cannot_be_are_refused(teacher_folder, windows, fault):
    change_json(teacher_folder / "config.json", fastwhisper_windows=windows)
    message = refusal(teacher_folder)
    assert message.startswith(f"{teacher_folder / 'config.json'}: fastwhisper_windows.seconds=")
    assert fault in message


def test_other_model_type(teacher_folder):
    change_json(teacher_folder / "config.json", model_type="wav2vec2")
    assert "model_type 'wav2vec2', must be 'whisper'" in refusal(teacher_folder)


def test_sizes_that_cannot_be_are_listed_together(teacher_folder):
    change_json(teacher_folder / "config.json", d_model="wide", decoder_layers=0)
    message = refusal(teacher_folder)
    assert "d_model is 'wide'" in message
    assert "decoder_layers is 0" in message


def test_heads_that_do_not_divide_the_width(teacher_folder):
    change_json(teacher_folder / "config.json", encoder_attention_heads=3)
    assert "d_model 16 does not divide over 3 encoder heads" in refusal(teacher_folder)


def test_activation_that_is_not_whispers(teacher_folder):
    change_json(teacher_folder / "config.json", activation_function="relu")
    assert "activation_function is 'relu', must be 'gelu'" in refusal(teacher_folder)


def test_absent_folder(tmp_path):
    assert "there is no folder" in refusal(tmp_path / "absent")
    with pytest.raises(InputError, match="there is no folder"):
        resolve_model(tmp_path / "absent")


def test_a_folder_takes_precedence_over_the_hub(teacher_folder):
    assert resolve_model(teacher_folder) == teacher_folder


def test_hub_id_without_network_is_one_line(monkeypatch, tmp_path):
    import huggingface_hub

    def snapshot_download(*args, **kwargs):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network\nsecond line")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(InputError) as caught:
        resolve_model("someone/whisper-none")
    message = str(caught.value)
    assert "someone/whisper-none" in message
    assert "no network" in message
    assert "\n" not in message


def test_only_safe_files_are_downloaded(monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    published = [
        "config.json",
        "model.safetensors",
        "model.fp32-00001-of-00002.safetensors",
        "model-00001-of-00002.safetensors",
        "pytorch_model.bin",
        "flax_model.msgpack",
        "tf_model.h5",
        "code.py",
        "merges.txt",
        "model.safetensors.index.json",
    ]
    fetched = []

    def snapshot_download(name, allow_patterns):
        fetched.extend(filter_repo_objects(published, allow_patterns=allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert resolve_model("openai/whisper-large-v3") == tmp_path
    assert fetched == [
        "config.json",
        "model.safetensors",
        "model-00001-of-00002.safetensors",
        "merges.txt",
        "model.safetensors.index.json",
    ]
