import dataclasses
import itertools

import pytest

from fastwhisper_jax.config import (
    Config,
    DataConfig,
    MeshConfig,
    ObjectiveConfig,
    ScheduleConfig,
    StudentConfig,
    TeacherConfig,
    TrainingConfig,
)
from fastwhisper_jax.config.overrides import near_field, override, split_overrides
from fastwhisper_jax.errors import InputError


def change(*arguments, config=None):
    return override(config or Config(), arguments)


@pytest.mark.parametrize(
    ("arguments", "section", "value"),
    [
        (["--teacher.path", "models/b"], "teacher", TeacherConfig(path="models/b")),
        (["--student.path", "none"], "student", StudentConfig(path=None)),
        (["--student.path", "m"], "student", StudentConfig(path="m")),
        (["--student.encoder_layers", "3"], "student", StudentConfig(encoder_layers=3)),
        (["--student.encoder_layers", "0", "3"], "student", StudentConfig(encoder_layers=(0, 3))),
        (["--student.decoder_layers", "None"], "student", StudentConfig(decoder_layers=None)),
        (["--student.frozen", "none"], "student", StudentConfig(frozen=())),
        (["--student.frozen", "a", "b"], "student", StudentConfig(frozen=("a", "b"))),
        (
            ["--student.rematerialise", "everything"],
            "student",
            StudentConfig(rematerialise="everything"),
        ),
        (["--objective.adaptive_gate", "true"], "objective", ObjectiveConfig(adaptive_gate=True)),
        (["--objective.adaptive_gate", "False"], "objective", ObjectiveConfig(adaptive_gate=False)),
        (["--student.dropout", "1e-1"], "student", StudentConfig(dropout=0.1)),
        (["--data.target_buckets", "8", "16"], "data", DataConfig(target_buckets=(8, 16))),
        (["--data.task", "translate"], "data", DataConfig(task="translate")),
        (["--objective.ce_weight", "none"], "objective", ObjectiveConfig(ce_weight=None)),
        (["--training.steps", "7"], "training", TrainingConfig(steps=7)),
        (["--mesh.data", "-1"], "mesh", MeshConfig(data=-1)),
        (["--data.train=a=b.jsonl"], "data", DataConfig(train=("a=b.jsonl",))),
        (["--data.train=a", "b"], "data", DataConfig(train=("a", "b"))),
    ],
)
def test_a_value_is_read_as_the_fields_type(arguments, section, value):
    assert change(*arguments) == dataclasses.replace(Config(), **{section: value})


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("1.0", 1.0), ("0.5", 0.5), ("200", 200)])
def test_a_length_without_a_point_is_an_int_and_with_one_a_float(text, value):
    warmup = change("--optimizer.warmup", text).optimizer.warmup
    assert warmup == value and type(warmup) is type(value)


def test_overrides_may_come_in_any_order_and_with_an_equals_sign():
    arguments = [
        ["--training.accumulation_steps", "3"],
        ["--training.global_batch_size=12"],  # 3 does not divide the default, 8
        ["--objective.self_weight.kind", "piecewise"],
        [
            "--objective.self_weight.values=0.5"
        ],  # the kind needs both fields, and they need the kind
        ["--objective.self_weight.boundaries", "10"],
    ]
    changed = {change(*itertools.chain(*order)) for order in itertools.permutations(arguments)}
    assert changed == {
        Config(
            training=TrainingConfig(global_batch_size=12, accumulation_steps=3),
            objective=ObjectiveConfig(
                self_weight=ScheduleConfig("piecewise", boundaries=(10,), values=(0.5,))
            ),
        )
    }


def test_fields_that_are_not_named_keep_the_recipes_values():
    recipe = Config(training=TrainingConfig(steps=5), mesh=MeshConfig(fsdp=2))
    changed = change("--training.seed", "9", config=recipe)
    assert changed == Config(training=TrainingConfig(steps=5, seed=9), mesh=MeshConfig(fsdp=2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.trian", "x"], "unknown field --data.trian; did you mean --data.train?"),
        (["--train.steps", "3"], "did you mean --training.steps?"),
        (["--model.dropout", "0"], "did you mean --student.dropout?"),
        (["--objective.kind", "linear"], "did you mean --objective.self_weight.kind?"),
        (["--qqq.zzz", "0"], "unknown field --qqq.zzz; see fastwhisper train --help"),
        (["--training", "0"], "unknown field --training"),
        (["--training.steps", "ten"], "--training.steps takes int or none, got 'ten'"),
        (["--training.steps", "1.5"], "--training.steps takes int or none, got '1.5'"),
        (["--training.steps", "1", "2"], "--training.steps takes int or none, got '1 2'"),
        (["--training.steps"], "--training.steps takes int or none, got nothing"),
        (["--training.steps="], "--training.steps takes int or none, got ''"),
        (["--training.seed", "none"], "--training.seed takes int, got 'none'"),
        (["--optimizer.learning_rate", "high"], "takes float, got 'high'"),
        (["--optimizer.warmup", "long"], "takes int or float, got 'long'"),
        (["--objective.adaptive_gate", "1"], "takes true|false, got '1'"),
        (["--data.task", "transcribing"], "takes transcribe|translate, got 'transcribing'"),
        (["--data.train"], "--data.train takes one or more of text, or none, got nothing"),
        (["--data.target_buckets", "8", "x"], "takes one or more of int, or none, got '8 x'"),
        (
            ["--student.decoder_layers", "two"],
            "--student.decoder_layers takes int or one or more of int or none, got 'two'",
        ),
        (
            ["--data.train", "a", "--data.train", "b"],
            "--data.train is given twice; give all of its values at once",
        ),
        (["x"], "unexpected argument 'x'"),
        (
            ["--training.log_every", "0"],
            "--training.log_every: TrainingConfig: log_every=0 must be at least 1",
        ),
        (
            ["--objective.self_weight.steps", "2.0"],
            "--objective.self_weight.steps: ScheduleConfig: steps=2.0 must be a count",
        ),
        (["--optimizer.learning_rate", "nan"], "learning_rate=nan must be a finite float"),
    ],
)
def test_an_unusable_override_is_refused_with_what_would_be_right(arguments, message):
    with pytest.raises(InputError) as raised:
        change(*arguments)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("learning_rate", "optimizer.learning_rate"),
        ("optimizer.lerning_rate", "optimizer.learning_rate"),
        ("dropout", "student.dropout"),
        ("batch_size", "training.eval_batch_size"),
        ("target-bucket", "data.target_buckets"),
        ("xyz", None),
    ],
)
def test_the_near_field_is_found_with_or_without_its_section(name, field):
    assert near_field(name) == field


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "r.py", "--run-dir", "a.b", "--training.steps", "5", "--data.train", "x", "y"],
        ["train", "--training.steps", "5", "--data.train", "x", "y", "r.py", "--run-dir", "a.b"],
        ["train", "--training.steps", "5", "r.py", "--data.train", "x", "y", "--run-dir", "a.b"],
        ["train", "--training.steps", "5", "--run-dir", "a.b", "r.py", "--data.train", "x", "y"],
    ],
)
def test_a_commands_own_arguments_may_come_anywhere_among_the_overrides(arguments):
    own, overrides = split_overrides(arguments)
    assert sorted(own) == ["--run-dir", "a.b", "r.py", "train"]
    assert own[0] == "train" and own[own.index("--run-dir") + 1] == "a.b"
    assert overrides == ["--training.steps", "5", "--data.train", "x", "y"]


def test_negative_numbers_are_values():
    own, overrides = split_overrides(["train", "--mesh.data", "-1", "--run-dir=a.b"])
    assert own == ["train", "--run-dir=a.b"]
    assert overrides == ["--mesh.data", "-1"]
