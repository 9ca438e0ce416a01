"""The `optimizer` section of a recipe."""

import dataclasses
from typing import Literal

from fastwhisper_jax.config.checks import LENGTH_RULE, check_rules, check_types, is_length


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with clipping by the global norm, linear warm-up and decay to `end_learning_rate`.

    Biases, norms and positions have no weight decay.
    """

    learning_rate: float = 1e-4
    end_learning_rate: float = 0.0
    warmup: int | float = 0.05
    decay: Literal["constant", "linear", "cosine"] = "linear"
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        check_types(self)
        check_rules(
            self,
            {
                "learning_rate": (self.learning_rate > 0, "must be above 0"),
                "end_learning_rate": (self.end_learning_rate >= 0, "must be at least 0"),
                "warmup": (is_length(self.warmup), LENGTH_RULE),
                "weight_decay": (self.weight_decay >= 0, "must be at least 0"),
                "beta1": (0 <= self.beta1 < 1, "must lie in [0, 1)"),
                "beta2": (0 <= self.beta2 < 1, "must lie in [0, 1)"),
                "epsilon": (self.epsilon > 0, "must be above 0"),
                "clip_norm": (self.clip_norm > 0, "must be above 0"),
            },
        )
