"""Recipes, overrides, devices and run directories that cannot be used are refused."""

import json

import pytest

TYPED = "from fastwhisper_jax.config import *\nconfig = Config(data=DataConfig(train='a.jsonl'))\n"
MUST_BIND = "must bind `config = Config(...)`"
SELF_WEIGHT = "--objective.self_weight"
HIDDEN = ("--objective.hidden_weight.init_value", 1)
LABEL_FREE = (
    *(*HIDDEN, "--objective.hidden_stacks", "encoder", "--objective.ce_weight", 0),
    *("--objective.teacher_weight.kind=constant", "--objective.teacher_weight.init_value", 0),
    *(f"{SELF_WEIGHT}.kind=constant", "--student.frozen=decoder"),
)


def test_the_error_about_a_mistyped_recipe_names_the_nearest_one(world, refused):
    arguments = world.train(recipe=world.folder / "aksd.py")
    refused(arguments, "no recipe at", "aksd.py; did you mean", "askd.py?")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("Adaptive self-knowledge distillation", "bad.txt cannot be run (SyntaxError"),
        ("raise KeyError('HOME2')", "bad.txt cannot be run (KeyError: 'HOME2')"),
        ("steps = 3", MUST_BIND + ", found nothing of that name; see the recipes in configs/"),
        ("config = {}", MUST_BIND + ", found a dict"),
        (TYPED, "bad.txt: DataConfig: train='a.jsonl' must be tuple[str, ...]"),
    ],
    ids=["no Python", "raises", "binds no config", "binds something else", "ill-typed field"],
)
def test_a_recipe_that_makes_no_config_is_refused(world, refused, content, named):
    refused(world.train(recipe=world.path("bad.txt", content)), "recipe ", named)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (
            ["--training.step", 3],
            "unknown field --training.step; did you mean --training.steps?",
        ),
        (
            ["--learning_rate", 0.1],
            "train takes no '--learning_rate'; did you mean --optimizer.learning_rate?",
        ),
        (
            ["--optimizer.warmup", 500],
            "optimizer.warmup=500 is not shorter than the run of 8 updates",
        ),
        (["--training.steps", "many"], "--training.steps takes int or none, got 'many'"),
        (["--student.dropout", 1.5], "--student.dropout: StudentConfig: dropout=1.5 must lie in"),
        (["--data.train", "a", "b"], "--data.train is given twice; give all of its values at once"),
        (["--data.eval", "a b=c"], "eval=('a b=c',) must hold paths, or NAME=PATH with a name of"),
        (["--data.eval", "=c"], "begin a path that holds '=' with ./"),
        (["--data.eval", "dev="], "must hold paths, or NAME=PATH"),
        (["--data.eval", "ema=c"], "and '.' other than 'ema'; begin"),
        (["--data.eval", "a=b", "a=b"], "must name each source of a set once, not a=b twice"),
        (["--data.concatenate_probability=1", "--data.cache=c"], "cannot be used with concatenat"),
        (["--student.decoder_layers", 3], "but the teacher has 2 layers; choose 1 to 2"),
        (["--student.decoder_layers", 1, 0], "student.decoder_layers=(1, 0): layer indices must"),
        (["--student.windows_seconds", 4, 31], "at most the teacher's 30"),
        (["--student.windows_seconds", 8, 4], "windows_seconds=(8.0, 4.0) must be ascending"),
        (["--student.windows_seconds", 0.25, 30], "whole encoder positions: multiples of 0.02 s"),
        (["--student.windows_seconds", 4, 12.5], "must end with whole seconds"),
        (["--student.frozen", "encodr"], "student.frozen='encodr' names no parameter; paths start"),
        (["--student.frozen", "encoder", "decoder"], "leaves nothing to train; unfreeze some part"),
        (
            ["--data.target_buckets", 16, 64],
            "data.target_buckets ends with 64, but the models hold 32 target positions; end it",
        ),
        (
            ["--objective.ce_weight=none", f"{SELF_WEIGHT}.init_value=0.5"],
            "at step 0 the loss weights are teacher 1, self 0.5 and CE -0.5 (the complement",
        ),
        (
            [f"{SELF_WEIGHT}.kind=piecewise", f"{SELF_WEIGHT}.values", 0.1, 0.2]
            + [f"{SELF_WEIGHT}.boundaries", 4, 1],
            "boundaries [4, 1] of a piecewise schedule must ascend; sort them",
        ),
        (["--objective.hidden_stacks", "decoder", "decoder"], "must name one stack or both, each"),
        (
            ["--objective.hidden_layers", "decoder:0"],
            "hidden_layers=('decoder:0',) must be different pairs STACK:STUDENT:TEACHER of a stack",
        ),
        (
            ["--objective.hidden_stacks=encoder", "--objective.hidden_layers=decoder:0:0"],
            "of a stack in hidden_stacks, such as encoder:1:3",
        ),
        (["--objective.hidden_margin_seconds", -1], "hidden_margin_seconds=-1.0 must be at least"),
        (
            [*HIDDEN, "--objective.hidden_layers", "decoder:0:1", "decoder:1:2", "decoder:0:2"],
            "names decoder:0:2, decoder:1:2: hidden states of layers that are not there; the "
            "student's decoder has layers 0 to 0, the teacher's 0 to 1",
        ),
        (
            [*HIDDEN, "--objective.hidden_stacks", "encoder"],
            "compares an encoder that student.frozen=('encoder',) keeps as it is; train the",
        ),
        (
            [*LABEL_FREE[:-1], "--student.frozen=none"],
            "student.frozen=() trains the decoder, but the objective compares hidden states of the "
            "encoder alone and nothing would teach the decoder; add decoder to student.frozen",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else " ",
)
def test_an_unusable_override_is_refused(world, refused, overrides, named):
    refused(world.train(*overrides), named)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["--training.keep_best", "eval_ce"], "error or loss that this run measures on an eval"),
        (
            ["--training.keep_best=dev/eval_accuracy"],
            "choose one of dev/eval_ce, dev/eval_wer",
        ),
        (["--training.keep_best=ema/dev/eval_wer"], "those of ema/ need training.evaluate_ema"),
        (
            ["--training.evaluate_ema=true", "--objective.self_teacher=snapshot"],
            "needs a self teacher that is an EMA, but objective.self_teacher='snapshot'; choose",
        ),
        (
            ["--training.evaluate_ema=true", f"{SELF_WEIGHT}.kind=constant"],
            "needs a self teacher, but objective.self_weight is 0 in every update of this run",
        ),
    ],
)
def test_an_evaluation_that_the_run_cannot_make_is_refused(world, refused, overrides, named):
    refused(world.train("--data.eval", f"dev={world.manifest}", *overrides), named)


@pytest.mark.parametrize("field", ["keep_best=eval_wer", "evaluate_at_start=true"])
def test_an_evaluation_without_data_is_refused(world, refused, field):
    refused(world.train(f"--training.{field}"), "needs data to evaluate on; give --data.eval")


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["--training.global_batch_size", 12], "training.global_batch_size=12 does not divide"),
        (["--training.accumulation_steps", 2], "in 2 micro-batches; use a multiple of 16"),
        (["--training.eval_batch_size", 4], "training.eval_batch_size=4 does not divide over 8"),
        (["--mesh.data", 3], "x mesh.tensor=1 does not make up 8 devices; choose"),
        (["--mesh.fsdp", 16], "choose a product of 8"),
        (["--mesh.tensor", 8], "the teacher's 2 heads do not; the student's 2 heads do not"),
    ],
)
def test_sizes_that_do_not_divide_over_eight_devices_are_refused(world, refused, overrides, named):
    refused(world.train(*overrides), named)


def test_a_run_of_another_config_is_not_resumed(world, refused):
    run_dir = world.unfinished_run("--optimizer.warmup", "1.0")
    refused(
        world.train("--training.seed", 1, "--optimizer.warmup", "1.0"),
        f"{run_dir} holds a run of another config: training.seed=1 (was 0); go on with that",
    )
    # 1 is one update and 1.0 is the whole run, although the numbers are equal.
    refused(world.train("--optimizer.warmup", 1), ": optimizer.warmup=1 (was 1.0); go on")


def test_a_run_of_a_later_version_is_not_resumed(world, refused):
    path = world.unfinished_run() / "config.json"
    values = json.loads(path.read_text())
    values["mesh"]["expert"] = 2
    path.write_text(json.dumps(values))
    refused(world.train(), f"{path} cannot be used", "(['expert']); use the version that wrote it")


def test_a_folder_of_other_files_is_refused_as_run_directory(world, refused):
    # A model's folder has a config.json too.
    refused(world.train(run_dir=world.teacher), "holds files but no run; choose an empty or new")


@pytest.mark.parametrize("below", [".", "deep/run"])
def test_a_run_directory_that_cannot_be_made_is_refused(world, refused, below):
    file = world.path("notes")
    named = f"--run-dir {file / below}: {file} is a file; choose a folder"
    refused(world.train(run_dir=file / below), named)


def test_a_cache_that_cannot_be_made_is_refused(world, refused):
    file = world.path("notes")
    overrides = ("--data.cache", file / "cache")
    refused(world.train(*overrides), f"data.cache {file}/cache: {file} is a file; choose a")
