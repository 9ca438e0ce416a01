import dataclasses
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
from fastwhisper_jax.config.overrides import field_help
from fastwhisper_jax.config.recipe import fields, from_json, load_recipe, to_json
from fastwhisper_jax.errors import InputError

# Differs from the default in every field that can, with values of every type.
CHANGED = Config(
    teacher=TeacherConfig(path="models/über", dtype="bfloat16"),
    student=StudentConfig(
        path="other",
        encoder_layers=(0, 3),
        decoder_layers=None,
        windows_seconds=(2.0, 10.0),
        margin_seconds=0.5,
        frozen=(),
        dropout=0.25,
        dtype="bfloat16",
        rematerialise="all_but_projections",
    ),
    data=DataConfig(
        train=("a.jsonl", "b c.jsonl"),
        eval=("d.jsonl", "far=e.jsonl"),
        language="es",
        task="translate",
        target_buckets=(16, 448),
        concatenate_probability=0.5,
        longer_window_probability=0.125,
        timestamp_probability=0.25,
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
        hidden_weight=ScheduleConfig("piecewise", 0.5, 0.0, 1, 1, (7,), (0.0,)),
        hidden_stacks=("encoder",),
        hidden_layers=("encoder:0:0", "encoder:1:3"),
        hidden_margin_seconds=0.5,
    ),
    optimizer=OptimizerConfig(1e-3, 1e-6, 100, "cosine", 0.1, 0.8, 0.95, 1e-6, 0.5),
    training=TrainingConfig(16, 2, None, 1000, 3, 5, 50, 60, 4, 2, 100, "eval_wer", True, True),
    mesh=MeshConfig(4, 2, 2),
)


def test_fields_yields_every_field_once_with_its_value():
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
    # Concatenation excludes the cache. The schedules leave the others unused.
    assert same == {
        "data.cache",
        "objective.teacher_weight.init_value",
        "objective.teacher_weight.end_value",
        "objective.self_weight.init_value",
        "objective.self_weight.steps",
        "objective.self_weight.boundaries",
        "objective.self_weight.values",
        "objective.teacher_weight.steps",  # 1 equals 1.0
        "objective.hidden_weight.end_value",
        "objective.hidden_weight.steps",
    }


def test_help_shows_each_field_with_its_type_and_value():
    lines = field_help(CHANGED).splitlines()
    assert len(lines) == len(list(fields(CHANGED)))
    assert "  --student.frozen  one or more of text, or none  [none]" in lines
    assert (
        "  --student.rematerialise  nothing|all_but_projections|everything  [all_but_projections]"
        in lines
    )
    assert "  --objective.ce_weight  float or none  [none]" in lines
    assert "  --data.target_buckets  one or more of int, or none  [16 448]" in lines
    assert "  --training.steps  int or none  [1000]" in lines


@pytest.mark.parametrize("config", [Config(), CHANGED])
def test_json_gives_back_the_config_down_to_the_types(config):
    again = from_json(to_json(config))
    assert again == config
    # 1 is one update and 1.0 is the whole run, although the numbers are equal.
    assert repr(again) == repr(config)


def test_json_of_an_earlier_version_is_read_and_what_it_lacks_has_its_default():
    values = json.loads(to_json(CHANGED))
    for section, names in {
        "student": ("windows_seconds", "margin_seconds"),
        "data": ("longer_window_probability", "cache"),
    }.items():
        for name in names:
            del values[section][name]
    del values["mesh"]
    values["student"]["context_seconds"] = 10.0
    values["data"]["encoder_cache"] = None
    expected = dataclasses.replace(
        CHANGED,
        student=dataclasses.replace(CHANGED.student, windows_seconds=(10.0,), margin_seconds=0.0),
        data=dataclasses.replace(CHANGED.data, longer_window_probability=0.0),
        mesh=MeshConfig(),
    )
    assert from_json(json.dumps(values)) == expected
    values["student"]["context_seconds"] = None
    values["data"] |= {"encoder_cache": "cache", "concatenate_probability": 0.0}
    earlier = from_json(json.dumps(values))
    assert (earlier.student.windows_seconds, earlier.data.cache) == (None, "cache")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda values: values.update(extra=1), r"\['extra'\].*use the version that wrote it"),
        (lambda values: values["data"].update(eva=1), r"DataConfig has other fields.*\['eva'\]"),
        (lambda values: values.update(mesh=3), r"MeshConfig has other fields.*\(3\)"),
        (lambda values: values.update(student=3), r"StudentConfig has other fields.*\(3\)"),
        (lambda values: values.update(data=None), r"DataConfig has other fields.*\(None\)"),
        (lambda values: values["mesh"].update(fsdp="2"), "fsdp='2' must be int"),
        (lambda values: values["mesh"].update(fsdp=0), "fsdp=0 must be at least 1"),
    ],
)
def test_json_of_a_later_version_is_refused(damage, message):
    values = json.loads(to_json(Config()))
    damage(values)
    with pytest.raises(InputError, match=message):
        from_json(json.dumps(values))


def test_a_field_that_an_earlier_version_did_not_have_takes_its_default():
    values = json.loads(to_json(CHANGED))
    del values["training"]["keep_best"], values["mesh"]
    before = dataclasses.replace(CHANGED.training, keep_best=None)
    assert from_json(json.dumps(values)) == dataclasses.replace(
        CHANGED, training=before, mesh=MeshConfig()
    )


def test_text_that_is_not_json_is_refused():
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


def test_the_error_about_a_mistyped_path_names_the_nearest_recipe(tmp_path):
    for name in ("askd_base_en.py", "ce_base_en.py"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"did you mean .*/askd_base_en\.py\?"):
        load_recipe(tmp_path / "askd_base.py")
    with pytest.raises(InputError, match=r"name a recipe's \.py file"):
        load_recipe(tmp_path / "qqq" / "askd_base_en.py")
    with pytest.raises(InputError, match="no recipe at"):
        load_recipe(tmp_path)
