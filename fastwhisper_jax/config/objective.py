"""The `objective` section of a recipe."""

import dataclasses
import re
from typing import Literal

from fastwhisper_jax.config.checks import LENGTH_RULE, check_rules, check_types, is_length


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """A weight over the steps of a run.

    The weight is `init_value` up to step `begin`. It then moves to `end_value` over `steps`
    updates along the curve `kind`, and stays there. A "constant" weight is `init_value`
    throughout. A "piecewise" weight is `init_value` first, and `values[i]` from step
    `boundaries[i]` on.
    """

    kind: Literal["constant", "linear", "cosine", "exponential", "piecewise"] = "constant"
    init_value: float = 0.0
    end_value: float = 0.0
    begin: int | float = 0
    steps: int | float = 1.0
    boundaries: tuple[int | float, ...] = ()
    values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_types(self)
        piecewise = self.kind == "piecewise"
        ends_well = self.kind != "exponential" or min(self.init_value, self.end_value) > 0
        check_rules(
            self,
            {
                "init_value": (self.init_value >= 0, "must be at least 0"),
                "end_value": (
                    self.end_value >= 0 and ends_well,
                    "must be at least 0; with kind='exponential' both ends must be above 0",
                ),
                "begin": (is_length(self.begin), LENGTH_RULE),
                "steps": (is_length(self.steps) and self.steps > 0, LENGTH_RULE + ", above 0"),
                "boundaries": (all(map(is_length, self.boundaries)), f"each {LENGTH_RULE}"),
                "values": (
                    len(self.values) == len(self.boundaries)
                    and piecewise == bool(self.values)
                    and min(self.values, default=0) >= 0,
                    "must hold one value of at least 0 for each of boundaries="
                    f"{self.boundaries!r}, with kind='piecewise' and no other",
                ),
            },
        )

    @property
    def is_zero(self) -> bool:
        """Whether the weight is 0 at every step of any run."""
        moves = self.kind not in ("constant", "piecewise")
        return not any((self.init_value, moves and self.end_value, *self.values))


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """The ASKD objective: its weights over the steps, the self teacher, and hidden states.

    Attributes:
        teacher_weight: weight a(s) of the teacher's KL term.
        self_weight: weight m(s) of the self teacher's KL term. The self-distillation phase begins
            where it first rises above 0, and ends where it stays 0.
        ce_weight: constant weight c(s) of cross-entropy, or None for the complement
            1 - a(s) - m(s).
        temperature: temperature tau of both KL terms.
        adaptive_gate: whether a token on which teacher and label differ gives its teacher weight
            to cross-entropy. It changes nothing if the labels are greedy pseudo-labels of this
            teacher.
        self_teacher: "ema" for an average of the student's parameters, "snapshot" for a copy.
        ema_decay: decay of the average per update.
        snapshot_steps: updates between two snapshots.
        chunk_tokens: target positions that a device projects to the vocabulary at once, counted
            over all of its rows of a micro-batch.
        hidden_weight: weight h(s) of the distance between hidden states of student and teacher.
        hidden_stacks: the stacks whose hidden states are compared. An encoder that is frozen is
            left out, for its distance teaches nothing.
        hidden_layers: pairs "STACK:STUDENT:TEACHER" of layers to compare, from 0, such as
            "encoder:1:3". A stack without a pair compares each layer of the student with the layer
            that it was copied from. A student of another model than the teacher compares with
            layers that are spread as far apart as possible.
        hidden_margin_seconds: how much of what follows the speech is compared in the encoder.
    """

    teacher_weight: ScheduleConfig = ScheduleConfig(init_value=1.0)
    self_weight: ScheduleConfig = ScheduleConfig()
    ce_weight: float | None = 0.8
    temperature: float = 2.0
    adaptive_gate: bool = False
    self_teacher: Literal["ema", "snapshot"] = "ema"
    ema_decay: float = 0.999
    snapshot_steps: int = 1000
    chunk_tokens: int = 256
    hidden_weight: ScheduleConfig = ScheduleConfig()
    hidden_stacks: tuple[Literal["encoder", "decoder"], ...] = ("encoder", "decoder")
    hidden_layers: tuple[str, ...] = ()
    hidden_margin_seconds: float = 1.0

    def __post_init__(self) -> None:
        check_types(self)
        pair = re.compile(rf"({'|'.join(self.hidden_stacks)}):\d+:\d+")
        check_rules(
            self,
            {
                "ce_weight": (self.ce_weight is None or self.ce_weight >= 0, "must be at least 0"),
                "temperature": (self.temperature > 0, "must be above 0"),
                "ema_decay": (0 <= self.ema_decay < 1, "must lie in [0, 1)"),
                "snapshot_steps": (self.snapshot_steps > 0, "must be at least 1"),
                "chunk_tokens": (self.chunk_tokens > 0, "must be at least 1"),
                "hidden_stacks": (
                    0 < len(self.hidden_stacks) == len(set(self.hidden_stacks)),
                    "must name one stack or both, each once",
                ),
                "hidden_layers": (
                    all(map(pair.fullmatch, self.hidden_layers))
                    and len(self.hidden_layers) == len(set(self.hidden_layers)),
                    "must be different pairs STACK:STUDENT:TEACHER of a stack in hidden_stacks, "
                    "such as encoder:1:3",
                ),
                "hidden_margin_seconds": (self.hidden_margin_seconds >= 0, "must be at least 0"),
            },
        )
