"""The sections of a recipe. A recipe imports all of them from here."""

from fastwhisper_jax.config.data import DataConfig
from fastwhisper_jax.config.objective import ObjectiveConfig, ScheduleConfig
from fastwhisper_jax.config.optimizer import OptimizerConfig
from fastwhisper_jax.config.schema import (
    Config,
    MeshConfig,
    StudentConfig,
    TeacherConfig,
    TrainingConfig,
)

__all__ = [
    "Config",
    "DataConfig",
    "MeshConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "StudentConfig",
    "TeacherConfig",
    "TrainingConfig",
]
