"""What a recipe says: frozen dataclasses, checked when they are made.

A recipe is a Python file that binds `config = Config(...)`. Lengths of schedules (`begin`,
`steps`, `warmup`) count completed updates when they are ints, and are fractions of the run's
total when they are floats.
"""

import dataclasses
from typing import Literal

from fastwhisper_jax.config.checks import check_rules, check_types
from fastwhisper_jax.config.data import DataConfig
from fastwhisper_jax.config.objective import ObjectiveConfig
from fastwhisper_jax.config.optimizer import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class TeacherConfig:
    """The teacher: a Hugging Face folder or hub id, and its compute dtype."""

    path: str = "openai/whisper-base"
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        check_types(self)


@dataclasses.dataclass(frozen=True)
class StudentConfig:
    """How the student is cut out of its teacher.

    Attributes:
        path: a Hugging Face folder or hub id to cut the student from instead of the teacher; it
            must share the teacher's vocabulary and mel bins.
        encoder_layers: None for all, a count (spread as far apart as possible), or indices.
        decoder_layers: the same for the decoder.
        context_seconds: length of the audio window; None for the teacher's (30 s in every published
            Whisper), at most that, and at most what the model at `path` hears.
        frozen: paths of parameters that are not trained: a stack ("encoder"), a part of one
            ("decoder/embed_tokens"). Encoder positions are never trained.
        dropout: residual dropout rate while training.
        dtype: compute dtype; parameters are float32.
        rematerialise: time for memory: what the backward pass computes again of each layer.
            "nothing"; "all_but_projections" (attention, norms and GELU); or "everything".
    """

    path: str | None = None
    encoder_layers: int | tuple[int, ...] | None = None
    decoder_layers: int | tuple[int, ...] | None = 2
    context_seconds: float | None = None
    frozen: tuple[str, ...] = ("encoder",)
    dropout: float = 0.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    rematerialise: Literal["nothing", "all_but_projections", "everything"] = "nothing"

    def __post_init__(self) -> None:
        check_types(self)
        check_rules(
            self,
            {
                "context_seconds": (
                    self.context_seconds is None or self.context_seconds > 0,
                    "must be above 0, or None for the teacher's",
                ),
                "dropout": (0 <= self.dropout < 1, "must lie in [0, 1)"),
            },
        )


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Length and rhythm of a run.

    Attributes:
        global_batch_size: utterances an update, over all devices and micro-batches.
        accumulation_steps: micro-batches an update is computed in; changes memory and, where
            dropout is 0, not the result.
        epochs: length of the run in passes over the data, unless `steps` gives it in updates.
        steps: see epochs.
        seed: of the order of the data, dropout and SpecAugment.
        log_every, eval_every, save_every: updates between two log lines, evaluations, checkpoints;
            0 evaluates or saves at the end only.
        keep_checkpoints: how many of the newest to keep.
        eval_batch_size: utterances decoded together.
        max_new_tokens: most tokens that evaluation generates for an utterance.
    """

    global_batch_size: int = 8
    accumulation_steps: int = 1
    epochs: int | None = 10
    steps: int | None = None
    seed: int = 0
    log_every: int = 10
    eval_every: int = 0
    save_every: int = 500
    keep_checkpoints: int = 2
    eval_batch_size: int = 8
    max_new_tokens: int = 224

    def __post_init__(self) -> None:
        check_types(self)
        batch, micro = self.global_batch_size, self.accumulation_steps
        positive = (
            "global_batch_size",
            "log_every",
            "keep_checkpoints",
            "eval_batch_size",
            "max_new_tokens",
        )
        rules = {name: (getattr(self, name) > 0, "must be at least 1") for name in positive}
        rules |= {
            name: (getattr(self, name) >= 0, "must be at least 0")
            for name in ("eval_every", "save_every", "seed")
        }
        rules |= {
            "accumulation_steps": (
                micro > 0 and batch % micro == 0,
                f"must be at least 1 and divide global_batch_size={batch}",
            ),
            "epochs": (
                self.steps is not None or (self.epochs or 0) > 0,
                "must be at least 1 where steps is not given",
            ),
            "steps": (self.steps is None or self.steps > 0, "must be at least 1, or None"),
        }
        check_rules(self, rules)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How devices are laid out. `data` of -1 takes the devices that the other axes leave.

    Rows of the batch are divided over `data` and `fsdp`; parameters and optimiser state over `fsdp`
    and `tensor`; heads, MLP widths and the loss's tokens over `tensor`. Several slices of a pod are
    joined along `data`.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        check_types(self)
        check_rules(
            self,
            {
                "data": (
                    self.data == -1 or self.data > 0,
                    "must be at least 1, or -1 for the rest",
                ),
                "fsdp": (self.fsdp > 0, "must be at least 1"),
                "tensor": (self.tensor > 0, "must be at least 1"),
            },
        )


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole recipe."""

    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()
    data: DataConfig = DataConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    mesh: MeshConfig = MeshConfig()

    def __post_init__(self) -> None:
        check_types(self)
