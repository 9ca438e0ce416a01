"""Bad input ends with one clear line and exit code 2, and nothing is written."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import soundfile

from fastwhisper_jax.commands.run_directory import write_config
from fastwhisper_jax.recipe import load_recipe


@dataclasses.dataclass(frozen=True)
class World:
    """Copies that a case may damage: a recipe, its teacher and its data."""

    folder: Path
    recipe: Path
    teacher: Path
    manifest: Path

    def train(self, *overrides, recipe=None, run_dir=None):
        """The arguments of a training that nothing is wrong with but what the case changes."""
        data = ("--teacher.path", self.teacher, "--data.train", self.manifest)
        run_dir = self.folder / "run" if run_dir is None else run_dir
        return ("train", recipe or self.recipe, "--run-dir", run_dir, *data, *overrides)

    def evaluate(self, *options, model=None):
        report = () if "--report" in options else ("--report", self.folder / "report.json")
        return ("evaluate", model or self.teacher, "--data", self.manifest, *report, *options)

    def path(self, name, content=""):
        """A file of this content."""
        (self.folder / name).write_text(content)
        return self.folder / name

    def damage_line(self, number, **changes):
        """Changes fields of a line of the manifest, counted from 1."""
        lines = self.manifest.read_text().splitlines()
        lines[number - 1] = json.dumps(json.loads(lines[number - 1]) | changes)
        self.manifest.write_text("\n".join(lines) + "\n")

    def run_of(self, *overrides):
        """A run directory as a training that was stopped before its first checkpoint leaves it."""
        from fastwhisper_jax.recipe import override

        write_config(self.folder / "run", override(load_recipe(self.recipe), overrides))
        return self.folder / "run"


@pytest.fixture
def world(tiny_recipe, tiny_teacher, tiny_manifest, tmp_path) -> World:
    shutil.copytree(tiny_teacher, tmp_path / "teacher")
    shutil.copytree(tiny_manifest.parent, tmp_path / "speech")
    shutil.copy(tiny_recipe, tmp_path / "askd.py")
    return World(
        tmp_path, tmp_path / "askd.py", tmp_path / "teacher", tmp_path / "speech" / "speech.jsonl"
    )


CASES = {}


def case(*named):
    """Registers a function of the world to arguments; the line must hold all of `named`."""

    def register(function):
        CASES[function.__name__] = function, named
        return function

    return register


# The recipe and its overrides.


@case("no recipe at", "aksd.py", "did you mean", "askd.py?")
def no_such_recipe(world):
    return world.train(recipe=world.folder / "aksd.py")


@case("recipe", "notes.txt cannot be run (SyntaxError", "correct it")
def recipe_that_is_no_python(world):
    return world.train(recipe=world.path("notes.txt", "ASKD, more or less"))


@case("must bind `config = Config(...)`", "see the recipes in configs/")
def recipe_that_binds_no_config(world):
    return world.train(recipe=world.path("empty.py", "steps = 3\n"))


@case("raises.py cannot be run (KeyError: 'HOME2')", "correct it")
def recipe_that_raises(world):
    return world.train(recipe=world.path("raises.py", "import os\nos.environ['HOME2']\n"))


@case("DataConfig: train='a.jsonl' must be tuple[str, ...]")
def recipe_with_an_ill_typed_field(world):
    text = "from fastwhisper_jax.config import *\nconfig = Config(data=DataConfig(train='a.jsonl'))"
    return world.train(recipe=world.path("typed.py", text))


@case("unknown field --training.step; did you mean --training.steps?")
def unknown_override(world):
    return world.train("--training.step", 3)


@case("train takes no '--learning_rate'; did you mean --optimizer.learning_rate?")
def override_without_its_section(world):
    return world.train("--learning_rate", 0.1)


@case("--training.steps takes int or none, got 'many'")
def ill_typed_override(world):
    return world.train("--training.steps", "many")


@case("--student.dropout: StudentConfig: dropout=1.5 must lie in [0, 1)")
def override_out_of_range(world):
    return world.train("--student.dropout", 1.5)


@case("--data.train is given twice; give all of its values at once")
def override_given_twice(world):
    return world.train("--data.train", world.manifest)


@case("encoder_cache='cache' cannot be used with concatenation or SpecAugment", "to none, or")
def encoder_cache_with_augmentation(world):
    return world.train("--data.encoder_cache", "cache", "--data.time_masks", 2)


@case("data.encoder_cache='cache' needs the teacher's own encoder", "student.frozen=()")
def encoder_cache_of_a_trained_encoder(world):
    return world.train("--data.encoder_cache", "cache", "--student.frozen", "none")


@case("at step 0 the loss weights are teacher 1, self 0.5 and CE -0.5", "set ce_weight")
def weights_that_leave_less_than_nothing(world):
    curve = ("--objective.self_weight.kind", "constant", "--objective.self_weight.init_value", 0.5)
    return world.train("--objective.ce_weight", "none", *curve)


@case("boundaries [4, 1]", "must ascend")
def piecewise_that_does_not_ascend(world):
    kind = ("--objective.self_weight.kind", "piecewise", "--objective.self_weight.values", 0.1, 0.2)
    return world.train(*kind, "--objective.self_weight.boundaries", 4, 1)


# The data.


@case("data.train names nothing to train on; give --data.train MANIFEST")
def no_data(world):
    return world.train()[:4] + ("--data.train", "none")


@case("manifest", "nowhere.jsonl cannot be read (No such file", "correct the path")
def no_such_manifest(world):
    return world.train()[:-1] + (world.folder / "nowhere.jsonl",)


@case("speech.jsonl:3 is not JSON", "correct or remove the line")
def manifest_line_that_is_no_json(world):
    lines = world.manifest.read_text().splitlines()
    lines[2] = '{"audio": "2.wav", "text": }'
    world.manifest.write_text("\n".join(lines))
    return world.train()


@case("speech.jsonl is empty; it must hold at least one line")
def empty_manifest(world):
    world.manifest.write_text("\n")
    return world.train()


@case("no audio file", "lost.wav", "correct the path or remove the line")
def missing_audio_file(world):
    world.damage_line(2, audio="lost.wav")
    return world.train()


@case("2 errors in", "lost.wav", "gone.wav")
def two_missing_audio_files(world):
    world.damage_line(2, audio="lost.wav")
    world.damage_line(8, audio="gone.wav")
    return world.train()


@case("text.wav cannot be read as audio", "convert it")
def text_file_named_wav(world):
    (world.manifest.parent / "text.wav").write_text("one two three\n" * 100)
    world.damage_line(1, audio="text.wav")
    return world.train()


@case("silence.wav is empty; it must hold at least one sample")
def audio_without_a_sample(world):
    soundfile.write(world.manifest.parent / "silence.wav", np.zeros(0), 16_000)
    world.damage_line(1, audio="silence.wav")
    return world.train()


@case("zero.wav cannot be read as audio")
def audio_file_without_a_byte(world):
    (world.manifest.parent / "zero.wav").touch()
    world.damage_line(1, audio="zero.wav")
    return world.train()


@case("utterance u2", "has no text", "pseudo-label")
def utterance_without_text(world):
    world.damage_line(3, text=None)
    return world.train()


@case("utterance u0: language 'xx' is not known to the model", "correct it")
def unknown_language(world):
    world.damage_line(1, language="xx")
    return world.train()


@case("none of 8 utterances", "fits 30 s of audio and 5 tokens", "allow longer ones")
def nothing_that_fits(world):
    return world.train("--data.target_buckets", 5)


@case("speech.jsonl:1 is not JSON")
def eval_data_that_cannot_be_used(world):
    bad = world.path("bad.jsonl", "zero\n")
    (world.folder / "speech" / "speech2.jsonl").write_bytes(world.manifest.read_bytes())
    bad.rename(world.manifest)
    return world.train()[:-1] + (
        world.folder / "speech" / "speech2.jsonl",
        "--data.eval",
        world.manifest,
    )


# The teacher and the student.


@case("there is no folder", "nobody/here/at-all", "hub id")
def no_such_teacher(world):
    return ("train", world.recipe, "--run-dir", world.folder / "r", "--teacher.path") + (
        "nobody/here/at-all",
    )


@case("has no model.safetensors; give a folder with a Whisper's weights")
def teacher_without_weights(world):
    (world.teacher / "model.safetensors").unlink()
    return world.train()


@case("has only pytorch_model.bin, but weights must be safetensors", "convert them")
def teacher_with_pickled_weights_alone(world):
    (world.teacher / "model.safetensors").rename(world.teacher / "pytorch_model.bin")
    return world.train()


@case("model.safetensors is damaged or truncated", "copy or download it again")
def teacher_with_a_truncated_file(world):
    path = world.teacher / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    return world.train()


def _with_tensors(world, change):
    tensors = safetensors.numpy.load_file(world.teacher / "model.safetensors")
    change(tensors)
    safetensors.numpy.save_file(tensors, world.teacher / "model.safetensors", {"format": "pt"})
    return world.train()


FC1 = "model.decoder.layers.1.fc1.weight"


@case(f"{FC1} is (16, 15), must be (16, 16)", "from the same model")
def teacher_with_a_tensor_of_the_wrong_shape(world):
    return _with_tensors(world, lambda tensors: tensors.update({FC1: tensors[FC1][:, :15].copy()}))


@case(f"1 missing ({FC1})")
def teacher_without_one_tensor(world):
    return _with_tensors(world, lambda tensors: tensors.pop(FC1))


@case("has no config.json; give a Hugging Face Whisper folder")
def teacher_that_is_no_model(world):
    return world.train()[:4] + ("--teacher.path", world.manifest.parent)


@case("config.json is not JSON", "copy or download it again")
def teacher_with_a_damaged_config(world):
    (world.teacher / "config.json").write_text('{"model_type": "whis')
    return world.train()


@case("no tokenizer in", "copy them from the model's page")
def teacher_without_a_tokenizer(world):
    (world.teacher / "tokenizer.json").unlink()
    return world.train()


@case("n_vocab is 262 in teacher", "and 270 in student", "they must be equal")
def student_of_another_vocabulary(world, write_teacher, make_params, tiny_dims):
    dims = dataclasses.replace(tiny_dims, n_vocab=270)
    other = write_teacher(world.folder / "other", dims, make_params(dims))
    return world.train("--student.path", other)


@case("student.decoder_layers=3, but the teacher has 2 layers; choose 1 to 2")
def more_layers_than_the_teacher_has(world):
    return world.train("--student.decoder_layers", 3)


@case("student.decoder_layers=(1, 0)", "must ascend")
def layers_out_of_order(world):
    return world.train("--student.decoder_layers", 1, 0)


@case("student.context_seconds=31.0", "at most the teacher's 30")
def context_longer_than_the_teachers(world):
    return world.train("--student.context_seconds", 31)


@case("data.target_buckets ends with 64, but the models hold 32 target positions")
def buckets_longer_than_the_model(world):
    return world.train("--data.target_buckets", 16, 64)


@case("student.frozen='encodr' names no parameter", "encoder/conv1")
def frozen_path_that_names_nothing(world):
    return world.train("--student.frozen", "encodr")


@case("leaves nothing to train; unfreeze some part")
def everything_frozen(world):
    return world.train("--student.frozen", "encoder", "decoder")


# The devices: eight of them.


@case("training.global_batch_size=12 does not divide over 8 devices", "use a multiple of 8")
def batch_that_does_not_divide(world):
    return world.train("--training.global_batch_size", 12)


@case("in 2 micro-batches", "use a multiple of 16")
def micro_batches_that_do_not_divide(world):
    return world.train("--training.global_batch_size", 8, "--training.accumulation_steps", 2)


@case("training.eval_batch_size=4 does not divide over 8 devices")
def eval_batch_that_does_not_divide(world):
    return world.train("--training.eval_batch_size", 4)


@case("mesh.data=3 x mesh.fsdp=1 does not make up 8 devices")
def mesh_of_another_number_of_devices(world):
    return world.train("--mesh.data", 3)


# What is written to.


@case("run holds a run of another config", "training.seed=1 (was 0)", "choose another --run-dir")
def run_directory_of_another_config(world):
    data = ("--teacher.path", str(world.teacher), "--data.train", str(world.manifest))
    world.run_of(*data)
    return world.train("--training.seed", 1)


@case("optimizer.warmup=1 (was 1.0)")
def run_directory_of_a_config_that_differs_in_type_alone(world):
    data = ("--teacher.path", str(world.teacher), "--data.train", str(world.manifest))
    world.run_of(*data, "--optimizer.warmup", "1.0")
    return world.train("--optimizer.warmup", 1)


@case("holds files but no run; choose an empty or new folder as --run-dir")
def run_directory_of_a_stranger(world):
    return world.train(run_dir=world.teacher)


@case("--run-dir", "notes is a file; choose a folder")
def run_directory_that_is_a_file(world):
    return world.train(run_dir=world.path("notes"))


@case("--run-dir", "notes is a file; choose a folder")
def run_directory_below_a_file(world):
    return world.train(run_dir=world.path("notes") / "deep" / "run")


@case("config.json cannot be used: Config has other fields than in this version (['mesh'])")
def run_directory_of_another_version(world):
    path = world.run_of() / "config.json"
    values = json.loads(path.read_text())
    del values["mesh"]
    path.write_text(json.dumps(values))
    return world.train()


@case("notes' cannot be written", "data.encoder_cache=none")
def encoder_cache_that_is_a_file(world):
    return world.train("--data.encoder_cache", world.path("notes"))


# Evaluate.


@case("--limit 0 must be at least 1")
def limit_of_nothing(world):
    return world.evaluate("--limit", 0)


@case("--max-new-tokens -1 must be at least 1")
def no_new_tokens(world):
    return world.evaluate("--max-new-tokens", -1)


@case("--batch-size=12 does not divide over 8 devices", "use a multiple of 8")
def evaluation_batch_that_does_not_divide(world):
    return world.evaluate("--batch-size", 12)


@case("notes/reports/tiny.json' cannot be written; name a file in a folder that is writable")
def report_below_a_file(world):
    return world.evaluate("--report", world.path("notes") / "reports" / "tiny.json")


@case("teacher' cannot be written; name a file")
def report_that_is_a_folder(world):
    return world.evaluate("--report", world.teacher)


@case("there is no folder", "at-all")
def no_such_model(world):
    return world.evaluate(model=world.folder / "nobody" / "at-all")


@case("model.safetensors is damaged or truncated")
def model_with_a_truncated_file(world):
    teacher_with_a_truncated_file(world)
    return world.evaluate()


@case("no audio file", "lost.wav")
def evaluation_of_missing_audio(world):
    missing_audio_file(world)
    return world.evaluate()


@case("language 'xx' is not known to the model")
def evaluation_in_an_unknown_language(world):
    return world.evaluate("--language", "xx")


# Export.


@case("is no run directory (there is no such folder); name the --run-dir of a training")
def export_of_nothing(world):
    return ("export", world.folder / "nowhere", "--out", world.folder / "a" / "b")


@case("teacher is no run directory (it has no run's config.json)")
def export_of_a_folder_that_is_no_run(world):
    return ("export", world.teacher, "--out", world.folder / "a" / "b")


@case("has no complete checkpoint yet; train until the first is saved")
def export_before_the_first_checkpoint(world):
    return ("export", world.run_of(), "--out", world.folder / "a" / "b")


@case("no checkpoint of step 3", "it has: none")
def export_of_a_step_that_is_not_there(world):
    return ("export", world.run_of(), "--out", world.folder / "a" / "b", "--step", 3)


@case("speech holds", "which an export would delete; choose a new folder or empty it")
def export_onto_a_strangers_folder(world):
    return ("export", world.run_of(), "--out", world.manifest.parent)


@case("teacher holds a model of another origin", "choose a new folder or empty it")
def export_onto_the_teacher(world):
    return ("export", world.run_of(), "--out", world.teacher)


@case("--out", "notes is a file; choose a folder")
def export_onto_a_file(world):
    return ("export", world.run_of(), "--out", world.path("notes"))


@case("--out", "notes is a file; choose a folder")
def export_below_a_file(world):
    return ("export", world.run_of(), "--out", world.path("notes") / "exported")


@case("has no config.json; give a Hugging Face Whisper folder")
def export_where_the_teacher_is_gone(world):
    run_dir = world.run_of("--teacher.path", str(world.teacher))
    (world.teacher / "config.json").unlink()
    return ("export", run_dir, "--out", world.folder / "a" / "b")


def contents(folder):
    return {path: path.is_dir() or path.read_bytes() for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line_and_2_and_writes_nothing(fastwhisper, world, request, name):
    make_arguments, named = CASES[name]
    code = make_arguments.__code__
    fixtures = code.co_varnames[1 : code.co_argcount]
    arguments = make_arguments(world, *map(request.getfixturevalue, fixtures))
    before = contents(world.folder)
    done = fastwhisper(*arguments)
    assert done.code == 2, done
    assert done.out == ""
    assert done.err.startswith("error: ") and done.err.count("\n") == 1, done.err
    for part in named:
        assert part in done.err
    assert contents(world.folder) == before


def test_the_world_is_good_but_for_what_a_case_changes(fastwhisper, world):
    """Or every case could pass for another reason."""
    done = fastwhisper(*world.train("--training.steps", 1))
    assert done.code == 0, done.err
