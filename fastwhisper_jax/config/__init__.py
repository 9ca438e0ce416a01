"""What a recipe says: the sections of a `Config`, all of which a recipe imports from here."""

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
