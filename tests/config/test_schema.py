import dataclasses
import math

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

LINEAR = {"kind": "linear", "init_value": 1.0}
PIECEWISE = {"kind": "piecewise", "boundaries": (0.5,), "values": (0.2,)}

# A section, fields that break one of its rules, and a part of the message.
BROKEN = [
    (ScheduleConfig, {"init_value": -0.1}, "init_value=-0.1 must be at least 0"),
    (ScheduleConfig, LINEAR | {"end_value": -1.0}, "end_value=-1.0 must be at least 0"),
    (ScheduleConfig, {"kind": "exponential", "init_value": 1.0}, "end_value=0.0"),
    (ScheduleConfig, {"kind": "exponential", "end_value": 1.0}, "both ends must be above 0"),
    (ScheduleConfig, LINEAR | {"begin": -1}, "begin=-1 must be a count of updates"),
    (ScheduleConfig, LINEAR | {"begin": 1.5}, "a fraction of the run (float, 0.0 to 1.0)"),
    (ScheduleConfig, LINEAR | {"steps": 0}, "steps=0"),
    (ScheduleConfig, LINEAR | {"steps": 0.0}, "steps=0.0"),
    (ScheduleConfig, LINEAR | {"steps": 2.0}, "steps=2.0"),
    (ScheduleConfig, PIECEWISE | {"boundaries": (-1,)}, "boundaries=(-1,)"),
    (ScheduleConfig, PIECEWISE | {"values": ()}, "values=()"),
    (ScheduleConfig, PIECEWISE | {"values": (0.2, 0.1)}, "one value of at least 0 for each"),
    (ScheduleConfig, PIECEWISE | {"values": (-0.2,)}, "values=(-0.2,)"),
    (ScheduleConfig, PIECEWISE | {"kind": "linear"}, "with kind='piecewise' and no other"),
    (ScheduleConfig, {"kind": "piecewise"}, "values=()"),
    (StudentConfig, {"windows_seconds": ()}, "windows_seconds=() must be ascending lengths"),
    (StudentConfig, {"windows_seconds": (0.0, 30.0)}, "windows_seconds=(0.0, 30.0)"),
    (StudentConfig, {"windows_seconds": (8.0, 4.0)}, "windows_seconds=(8.0, 4.0)"),
    (StudentConfig, {"windows_seconds": (8.0, 8.0)}, "or None for the teacher's"),
    (StudentConfig, {"margin_seconds": -0.5}, "margin_seconds=-0.5 must be at least 0"),
    (StudentConfig, {"dropout": 1.0}, "dropout=1.0 must lie in [0, 1)"),
    (StudentConfig, {"dropout": -0.1}, "dropout=-0.1"),
    (DataConfig, {"target_buckets": ()}, "target_buckets=()"),
    (DataConfig, {"target_buckets": (0, 32)}, "ascending lengths above 0"),
    (DataConfig, {"target_buckets": (64, 32)}, "target_buckets=(64, 32)"),
    (DataConfig, {"target_buckets": (32, 32)}, "target_buckets=(32, 32)"),
    (DataConfig, {"concatenate_probability": 1.1}, "concatenate_probability=1.1"),
    (DataConfig, {"threads": 0}, "threads=0 must be at least 1"),
    (DataConfig, {"time_masks": -1}, "time_masks=-1 must be at least 0"),
    (DataConfig, {"time_mask_frames": -1}, "time_mask_frames=-1"),
    (DataConfig, {"freq_masks": -1}, "freq_masks=-1"),
    (DataConfig, {"freq_mask_bins": -1}, "freq_mask_bins=-1"),
    (DataConfig, {"longer_window_probability": -0.1}, "longer_window_probability=-0.1 must lie"),
    (DataConfig, {"cache": "c", "concatenate_probability": 0.5}, "cache='c' cannot be used with"),
    (ObjectiveConfig, {"ce_weight": -0.1}, "ce_weight=-0.1"),
    (ObjectiveConfig, {"temperature": 0.0}, "temperature=0.0 must be above 0"),
    (ObjectiveConfig, {"ema_decay": 1.0}, "ema_decay=1.0 must lie in [0, 1)"),
    (ObjectiveConfig, {"snapshot_steps": 0}, "snapshot_steps=0"),
    (ObjectiveConfig, {"chunk_tokens": 0}, "chunk_tokens=0"),
    (OptimizerConfig, {"learning_rate": 0.0}, "learning_rate=0.0 must be above 0"),
    (OptimizerConfig, {"end_learning_rate": -1e-5}, "end_learning_rate=-1e-05"),
    (OptimizerConfig, {"warmup": 1.5}, "warmup=1.5 must be a count of updates"),
    (OptimizerConfig, {"weight_decay": -0.1}, "weight_decay=-0.1"),
    (OptimizerConfig, {"beta1": 1.0}, "beta1=1.0 must lie in [0, 1)"),
    (OptimizerConfig, {"beta2": -0.5}, "beta2=-0.5"),
    (OptimizerConfig, {"epsilon": 0.0}, "epsilon=0.0 must be above 0"),
    (OptimizerConfig, {"clip_norm": 0.0}, "clip_norm=0.0 must be above 0"),
    (TrainingConfig, {"global_batch_size": 0}, "global_batch_size=0 must be at least 1"),
    (TrainingConfig, {"accumulation_steps": 0}, "accumulation_steps=0 must be at least 1"),
    (TrainingConfig, {"accumulation_steps": 3}, "and divide global_batch_size=8"),
    (TrainingConfig, {"epochs": 0}, "epochs=0 must be at least 1"),
    (TrainingConfig, {"epochs": None}, "where steps is not given"),
    (TrainingConfig, {"steps": 0}, "steps=0 must be at least 1"),
    (TrainingConfig, {"seed": -1}, "seed=-1 must be at least 0"),
    (TrainingConfig, {"log_every": 0}, "log_every=0"),
    (TrainingConfig, {"eval_every": -1}, "eval_every=-1"),
    (TrainingConfig, {"save_every": -1}, "save_every=-1"),
    (TrainingConfig, {"keep_checkpoints": 0}, "keep_checkpoints=0"),
    (TrainingConfig, {"eval_batch_size": 0}, "eval_batch_size=0"),
    (TrainingConfig, {"max_new_tokens": 0}, "max_new_tokens=0"),
    (MeshConfig, {"data": 0}, "data=0 must be at least 1, or -1 for the rest"),
    (MeshConfig, {"data": -2}, "data=-2"),
    (MeshConfig, {"fsdp": 0}, "fsdp=0 must be at least 1"),
]

ILL_TYPED = [
    (TeacherConfig, {"path": None}, "path=None must be str"),
    (TeacherConfig, {"dtype": "float16"}, "dtype='float16' must be one of 'float32', 'bfloat16'"),
    (StudentConfig, {"path": 3}, "path=3 must be str | None"),
    (StudentConfig, {"decoder_layers": "2"}, "must be int | tuple[int, ...] | None"),
    (StudentConfig, {"decoder_layers": [0, 5]}, "decoder_layers=[0, 5]"),
    (StudentConfig, {"decoder_layers": True}, "decoder_layers=True"),
    (StudentConfig, {"frozen": "encoder"}, "frozen='encoder' must be tuple[str, ...]"),
    (ObjectiveConfig, {"adaptive_gate": 1}, "adaptive_gate=1 must be bool"),
    (DataConfig, {"train": "train.jsonl"}, "train='train.jsonl' must be tuple[str, ...]"),
    (DataConfig, {"target_buckets": (32, "64")}, "target_buckets=(32, '64')"),
    (ScheduleConfig, {"kind": "cosin"}, "kind='cosin' must be one of 'constant', 'linear'"),
    (ScheduleConfig, {"steps": "0.5"}, "steps='0.5' must be int | float"),
    (ObjectiveConfig, {"teacher_weight": 0.5}, "teacher_weight=0.5 must be ScheduleConfig"),
    (OptimizerConfig, {"learning_rate": "3e-4"}, "learning_rate='3e-4' must be a finite float"),
    (OptimizerConfig, {"learning_rate": math.nan}, "learning_rate=nan"),
    (OptimizerConfig, {"clip_norm": math.inf}, "clip_norm=inf must be a finite float"),
    (TrainingConfig, {"steps": 10.0}, "steps=10.0 must be int | None"),
    (Config, {"training": None}, "training=None must be TrainingConfig"),
]


@pytest.mark.parametrize(("section", "values", "named"), BROKEN + ILL_TYPED)
def test_a_broken_rule_names_section_field_value_and_rule(section, values, named):
    with pytest.raises(InputError) as raised:
        section(**values)
    assert str(raised.value).startswith(f"{section.__name__}: ")
    assert named in str(raised.value)


def test_all_broken_rules_of_a_section_are_named_at_once():
    with pytest.raises(InputError, match=r"learning_rate=-1.*beta1=2\.0.*clip_norm=0"):
        OptimizerConfig(learning_rate=-1, beta1=2.0, clip_norm=0)


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (ScheduleConfig, LINEAR | {"begin": 0.0, "steps": 1.0}),
        (ScheduleConfig, LINEAR | {"begin": 10_000, "steps": 1}),
        (ScheduleConfig, {"kind": "exponential", "init_value": 1.0, "end_value": 1e-3}),
        (ScheduleConfig, PIECEWISE | {"boundaries": (10, 0.5), "values": (0.2, 0.0)}),
        (StudentConfig, {"decoder_layers": (0, 5), "encoder_layers": 3, "frozen": ()}),
        (StudentConfig, {"dropout": 0}),
        (StudentConfig, {"windows_seconds": (0.02, 30)}),
        (DataConfig, {"cache": "c", "time_masks": 1, "freq_masks": 1}),
        (ObjectiveConfig, {"ce_weight": None}),
        (TrainingConfig, {"epochs": None, "steps": 1}),
        (TrainingConfig, {"accumulation_steps": 8, "eval_every": 0, "save_every": 0}),
        (MeshConfig, {"data": 4, "fsdp": 2}),
    ],
)
def test_values_at_the_edge_of_a_rule_are_accepted(section, values):
    assert dataclasses.asdict(section(**values)).items() >= values.items()


def test_sections_cannot_be_changed_and_equal_configs_hash_alike():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().training.steps = 3
    assert hash(Config()) == hash(Config())
