"""Manifests, audio and models that cannot be used are refused by train and evaluate."""

import dataclasses

import numpy as np
import pytest
import safetensors.numpy
import soundfile

FC1 = "model.decoder.layers.1.fc1.weight"


@pytest.fixture(params=["train", "evaluate"])
def command(request, world):
    """The arguments of a command that reads the world's data and teacher."""
    return getattr(world, request.param)()


def test_training_without_data_is_refused(world, refused):
    refused(world.train(data="none"), "names nothing to train on; give --data.train MANIFEST")


def test_a_missing_manifest_is_refused(world, refused):
    named = "nowhere.jsonl cannot be read (No such file or directory)"
    refused(world.train(data=world.folder / "nowhere.jsonl"), named, "correct the path")


def test_a_manifest_line_that_is_not_json_is_named(world, refused, command):
    lines = world.manifest.read_text().splitlines()
    lines[2] = '{"audio": "2.wav", "text": }'
    world.manifest.write_text("\n".join(lines))
    refused(command, f"{world.manifest}:3 is not JSON", "correct or remove the line")


def test_an_empty_manifest_is_refused(world, refused, command):
    world.manifest.write_text("\n")
    refused(command, f"{world.manifest} is empty; it must hold at least one line such as")


def test_missing_audio_files_are_named_together(world, refused, command):
    world.change_line(2, audio="lost.wav")
    refused(command, "no audio file", "lost.wav", "correct the path or remove the line")
    world.change_line(8, audio="gone.wav")
    refused(command, "2 errors in", "lost.wav", "gone.wav")


@pytest.mark.parametrize("content", [b"one two three\n" * 100, b""], ids=["text", "no byte"])
def test_a_wav_file_without_audio_is_named(world, refused, command, content):
    (world.manifest.parent / "text.wav").write_bytes(content)
    world.change_line(1, audio="text.wav")
    refused(command, "text.wav cannot be read as audio", "convert it")


def test_audio_without_samples_is_named(world, refused, command):
    soundfile.write(world.manifest.parent / "silence.wav", np.zeros(0), 16_000)
    world.change_line(1, audio="silence.wav")
    refused(command, "silence.wav is empty; it must hold at least one sample: leave it out")


def test_an_utterance_without_text_is_named(world, refused, command):
    world.change_line(3, text=None)
    refused(command, "utterance u2 (", "has no text", 'add "text"')


def test_text_with_half_a_character_is_named(world, refused, command):
    world.change_line(3, text="two \ud83d")
    refused(command, f"{world.manifest}:3: \"text\" holds '\\ud83d', which is half", "correct or")


def test_an_unknown_language_is_named(world, refused, command):
    world.change_line(1, language="xx")
    refused(command, "utterance u0: language 'xx' is not known to the model", "correct it")


def test_data_of_which_no_utterance_fits_is_refused(world, refused):
    refused(world.train("--data.target_buckets", 5), "none of 8 utterances", "and 5 tokens; cut")


def test_eval_data_is_read_before_anything_is_written(world, refused):
    refused(world.train("--data.eval", world.path("eval.jsonl", "zero\n")), "eval.jsonl:1 is not")


def test_a_missing_model_is_refused(world, refused):
    name = "nobody/here/at-all"
    for arguments in (world.train(teacher=name), world.evaluate(model=name)):
        refused(arguments, f"there is no folder '{name}'", "or a hub id")


def test_a_folder_without_a_model_is_refused(world, refused):
    speech = world.manifest.parent
    for arguments in (world.train(teacher=speech), world.evaluate(model=speech)):
        refused(arguments, f"{speech} has no config.json; give a Hugging Face Whisper folder")


def test_a_model_config_that_is_not_json_is_refused(world, refused, command):
    (world.teacher / "config.json").write_text('{"model_type": "whis')
    refused(command, "config.json is not JSON", "copy or download it again")


def test_a_folder_without_weights_is_refused(world, refused, command):
    (world.teacher / "model.safetensors").unlink()
    refused(command, f"{world.teacher} has no model.safetensors; give a folder with a Whisper's")


def test_a_folder_with_pickled_weights_only_is_refused(world, refused, command):
    (world.teacher / "model.safetensors").rename(world.teacher / "pytorch_model.bin")
    refused(command, "has only pytorch_model.bin, but weights must be safetensors", "convert them")


def test_a_truncated_weights_file_is_named(world, refused, command):
    path = world.teacher / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    refused(command, f"{path} is damaged or truncated", "copy or download it again")


def test_missing_tensors_and_tensors_of_the_wrong_shape_are_named(world, refused, command):
    path = world.teacher / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    tensors[FC1] = np.ascontiguousarray(tensors[FC1][:, :15])
    del tensors["model.encoder.conv1.bias"]
    safetensors.numpy.save_file(tensors, path, {"format": "pt"})
    named = ("1 missing (model.encoder.conv1.bias)", f"{FC1} is (16, 15), must be (16, 16)")
    refused(command, *named, "Take weights and config.json from the same model")


def test_a_folder_without_a_tokenizer_is_refused(world, refused, command):
    (world.teacher / "tokenizer.json").unlink()
    refused(command, "no tokenizer in", "copy them from the model's page")


def test_a_student_of_another_vocabulary_is_refused(
    world, refused, write_teacher, make_params, tiny_dims
):
    dims = dataclasses.replace(tiny_dims, n_vocab=270)
    other = write_teacher(world.folder / "other", dims, make_params(dims))
    named = f"n_vocab is 262 in teacher {world.teacher} and 270 in student {other}; they must be"
    refused(world.train("--student.path", other), named)
