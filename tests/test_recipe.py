import dataclasses
import itertools
import json

import pytest

from fastwhisper_jax.config import (
    Config,
    DataConfig,
    MeshConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ScheduleConfig,
    StudentConfig,
    TeacherConfig,
    TrainingConfig,
)
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.recipe import (
    field_help,
    fields,
    from_json,
    load_recipe,
    near_field,
    override,
    split_overrides,
    to_json,
)

# Every field away from its default, of every type that there is.
CHANGED = Config(
    teacher=TeacherConfig(path="models/über", dtype="bfloat16"),
    student=StudentConfig(
        path="other",
        encoder_layers=(0, 3),
        decoder_layers=None,
        context_seconds=10.0,
        frozen=(),
        dropout=0.25,
        dtype="bfloat16",
        rematerialise=True,
    ),
    data=DataConfig(
        train=("a.jsonl", "b c.jsonl"),
        eval=("d.jsonl",),
        language="es",
        task="translate",
        target_buckets=(16, 448),
        concatenate_probability=0.5,
        time_masks=2,
        time_mask_frames=40,
        freq_masks=1,
        freq_mask_bins=5,
        threads=3,
    ),
    objective=ObjectiveConfig(
        teacher_weight=ScheduleConfig("piecewise", 1.0, 0.0, 1, 1, (10, 0.5), (0.5, 0.0)),
        self_weight=ScheduleConfig("cosine", 0.0, 0.5, 0.5, 1.0),
        ce_weight=None,
        temperature=1.5,
        adaptive_gate=True,
        self_teacher="snapshot",
        ema_decay=0.9,
        snapshot_steps=7,
        chunk_tokens=64,
    ),
    optimizer=OptimizerConfig(1e-3, 1e-6, 100, "cosine", 0.1, 0.8, 0.95, 1e-6, 0.5),
    training=TrainingConfig(16, 2, None, 1000, 3, 5, 50, 60, 4, 2, 100),
    mesh=MeshConfig(4, 2),
)


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
        (["--student.rematerialise", "true"], "student", StudentConfig(rematerialise=True)),
        (["--student.rematerialise", "False"], "student", StudentConfig(rematerialise=False)),
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
def test_a_length_is_updates_without_a_point_and_a_fraction_with_one(text, value):
    warmup = change("--optimizer.warmup", text).optimizer.warmup
    assert warmup == value and type(warmup) is type(value)


def test_overrides_may_come_in_any_order_and_with_an_equals_sign():
    arguments = [
        ["--training.accumulation_steps", "3"],
        ["--training.global_batch_size=12"],  # 3 does not divide the default, 8
        ["--objective.self_weight.kind", "piecewise"],
        ["--objective.self_weight.values=0.5"],  # piecewise needs both, and they need piecewise
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
    changed = change("--training.seed", "9", config=CHANGED)
    training = dataclasses.replace(CHANGED.training, seed=9)
    assert changed == dataclasses.replace(CHANGED, training=training)


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
        (["--student.rematerialise", "1"], "takes true|false, got '1'"),
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
def test_an_override_that_cannot_be_used_says_what_would_be(arguments, message):
    with pytest.raises(InputError) as raised:
        change(*arguments)
    assert message in str(raised.value)


def test_the_fields_are_every_leaf_once_with_its_value():
    names = [name for name, _, _ in fields(CHANGED)]
    assert len(names) == len(set(names))
    leaves = {}
    for name, _, value in fields(CHANGED):
        section = CHANGED
        for part in name.split("."):
            section = getattr(section, part)
        assert section == value
        leaves[name] = value
    assert leaves["objective.teacher_weight.boundaries"] == (10, 0.5)
    defaults = {name: value for name, _, value in fields(Config())}
    same = {name for name, value in leaves.items() if defaults[name] == value}
    # SpecAugment excludes the cache; the others make up the schedules' unused halves.
    assert same == {
        "data.encoder_cache",
        "objective.teacher_weight.init_value",
        "objective.teacher_weight.end_value",
        "objective.self_weight.init_value",
        "objective.self_weight.steps",
        "objective.self_weight.boundaries",
        "objective.self_weight.values",
        "objective.teacher_weight.steps",  # 1 equals 1.0
    }


def test_help_shows_each_field_with_its_type_and_value():
    lines = field_help(CHANGED).splitlines()
    assert len(lines) == len(list(fields(CHANGED)))
    assert "  --student.frozen  one or more of text, or none  [none]" in lines
    assert "  --student.rematerialise  true|false  [true]" in lines
    assert "  --objective.ce_weight  float or none  [none]" in lines
    assert "  --data.target_buckets  one or more of int, or none  [16 448]" in lines
    assert "  --training.steps  int or none  [1000]" in lines


@pytest.mark.parametrize("config", [Config(), CHANGED])
def test_json_gives_back_the_config_down_to_the_types(config):
    again = from_json(to_json(config))
    assert again == config
    # 1 update and 1.0 of the run are equal numbers.
    assert repr(again) == repr(config)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda values: values.pop("mesh"), r"Config has other fields than in this.*\['mesh'\]"),
        (lambda values: values.update(extra=1), r"\['extra'\].*use the version that wrote it"),
        (lambda values: values["data"].pop("task"), r"DataConfig has other fields.*\['task'\]"),
        (lambda values: values.update(mesh=3), r"MeshConfig has other fields.*\(3\)"),
        (lambda values: values["mesh"].update(fsdp="2"), "fsdp='2' must be int"),
        (lambda values: values["mesh"].update(fsdp=0), "fsdp=0 must be at least 1"),
    ],
)
def test_json_of_another_version_is_refused(damage, message):
    values = json.loads(to_json(Config()))
    damage(values)
    with pytest.raises(InputError, match=message):
        from_json(json.dumps(values))


def test_text_that_is_no_json_is_refused():
    with pytest.raises(InputError, match="not JSON"):
        from_json('{"teacher": ')


def test_a_recipe_is_the_config_that_its_file_binds(tmp_path):
    path = tmp_path / "recipe.py"
    path.write_text(
        "from fastwhisper_jax.config import Config, TrainingConfig\n"
        "steps = 3 * 4\n"
        "config = Config(training=TrainingConfig(steps=steps))\n"
    )
    assert load_recipe(path) == Config(training=TrainingConfig(steps=12))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("config = (", "cannot be run (SyntaxError: "),
        ("\0", "cannot be run ("),
        ("import nowhere_to_be_found", "(ModuleNotFoundError: No module named"),
        ("1 / 0", "(ZeroDivisionError: division by zero); it must be Python that binds"),
        ("raise SystemExit(3)", "cannot be run (SystemExit: 3)"),
        ("steps = 3", "must bind `config = Config(...)`, found nothing of that name"),
        ("config = {}", "must bind `config = Config(...)`, found a dict"),
        (
            "from fastwhisper_jax.config import *\nconfig = Config(optimiser=OptimizerConfig())",
            "unexpected keyword argument 'optimiser'",
        ),
        (
            "from fastwhisper_jax.config import *\nconfig = Config(data=DataConfig(train='a'))",
            "recipe.py: DataConfig: train='a' must be tuple[str, ...]",
        ),
    ],
)
def test_a_recipe_that_cannot_be_used_is_named_with_the_reason(tmp_path, content, message):
    path = tmp_path / "recipe.py"
    path.write_text(content)
    with pytest.raises(InputError) as raised:
        load_recipe(path)
    assert str(raised.value).startswith(f"recipe {path}")
    assert message in str(raised.value)


def test_of_recipes_beside_a_mistyped_one_the_nearest_is_named(tmp_path):
    for name in ("askd_base_en.py", "ce_base_en.py"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"did you mean .*/askd_base_en\.py\?"):
        load_recipe(tmp_path / "askd_base.py")
    with pytest.raises(InputError, match=r"name a recipe's \.py file"):
        load_recipe(tmp_path / "qqq" / "askd_base_en.py")
    with pytest.raises(InputError, match="no recipe at"):
        load_recipe(tmp_path)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("learning_rate", "optimizer.learning_rate"),
        ("optimizer.lerning_rate", "optimizer.learning_rate"),
        ("dropout", "student.dropout"),
        ("batch_size", "training.eval_batch_size"),
        ("encoder-cache", "data.encoder_cache"),
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
def test_a_commands_own_arguments_stand_anywhere_among_the_overrides(arguments):
    own, overrides = split_overrides(arguments)
    assert sorted(own) == ["--run-dir", "a.b", "r.py", "train"]
    assert own[0] == "train" and own[own.index("--run-dir") + 1] == "a.b"
    assert overrides == ["--training.steps", "5", "--data.train", "x", "y"]


def test_negative_numbers_are_values():
    own, overrides = split_overrides(["train", "--mesh.data", "-1", "--run-dir=a.b"])
    assert own == ["train", "--run-dir=a.b"]
    assert overrides == ["--mesh.data", "-1"]
