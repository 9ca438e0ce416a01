"""A recipe as frozen dataclasses, which check their fields when they are made.

A recipe is a Python file that binds `config = Config(...)`. The lengths of schedules are `begin`,
`steps` and `warmup`. An int counts completed updates. A float is a fraction of the whole run.
"""

import dataclasses
from typing import Literal

from fastwhisper_jax.config.checks import check_rules, check_types
from fastwhisper_jax.config.data import DataConfig
from fastwhisper_jax.config.objective import ObjectiveConfig
from fastwhisper_jax.config.optimizer import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class TeacherConfig:
    """The teacher: its Hugging Face folder or hub id, and the dtype that it computes in."""

    path: str = "openai/whisper-base"
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        check_types(self)


@dataclasses.dataclass(frozen=True)
class StudentConfig:
    """How the student is cut out of its teacher.

    Attributes:
        path: Hugging Face folder or hub id of a model to cut the student from instead of the
            teacher. It must have the teacher's vocabulary and mel bins.
        encoder_layers: which layers of the encoder the student keeps: None for all, a count
            (spread as far apart as possible), or indices.
        decoder_layers: which layers of the decoder the student keeps, in the same forms.
        windows_seconds: ascending lengths of audio that the student hears at once, such as
            (2, 4, 8, 15, 30). An utterance goes to the shortest that holds it. None is the
            teacher's, which is 30 s in every published Whisper and the longest that is allowed.
        margin_seconds: silence that a window keeps behind the speech. The longest needs none.
        frozen: paths of parameters that are not trained, such as a stack ("encoder") or a part of
            one ("decoder/embed_tokens"). The encoder's positions are never trained.
        dropout: rate of residual dropout while training.
        dtype: dtype that the student computes in. Its parameters are float32.
        rematerialise: what the backward pass computes again in each layer, to save memory:
            "nothing", "all_but_projections" (attention, norms and GELU) or "everything".
    """

    path: str | None = None
    encoder_layers: int | tuple[int, ...] | None = None
    decoder_layers: int | tuple[int, ...] | None = 2
    windows_seconds: tuple[float, ...] | None = None
    margin_seconds: float = 0.0
    frozen: tuple[str, ...] = ("encoder",)
    dropout: float = 0.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    rematerialise: Literal["nothing", "all_but_projections", "everything"] = "nothing"

    def __post_init__(self) -> None:
        check_types(self)
        windows = self.windows_seconds
        check_rules(
            self,
            {
                "windows_seconds": (
                    windows is None
                    or (bool(windows) and windows[0] > 0 and list(windows) == sorted(set(windows))),
                    "must be ascending lengths above 0, or None for the teacher's",
                ),
                "margin_seconds": (self.margin_seconds >= 0, "must be at least 0"),
                "dropout": (0 <= self.dropout < 1, "must lie in [0, 1)"),
            },
        )


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """The length of a run, and how often it logs, evaluates and saves.

    Attributes:
        global_batch_size: utterances in an update, over all devices and micro-batches.
        accumulation_steps: number of micro-batches in an update. More of them need less memory.
            Without dropout the result is the same.
        epochs: length of the run in passes over the data; not used if `steps` is given.
        steps: length of the run in updates, or None.
        seed: seed of the order of the data, of dropout and of SpecAugment.
        log_every, eval_every, save_every: updates between two log lines, evaluations, checkpoints.
            With 0 a run evaluates or saves at its end only.
        keep_checkpoints: number of the newest checkpoints to keep.
        eval_batch_size: utterances that evaluation decodes together.
        max_new_tokens: the most tokens that evaluation generates for an utterance.
        keep_best: an error or loss of an eval set, such as "eval_wer" or "NAME/eval_wer". The
            checkpoint for which it is lowest is kept beside the newest ones.
        evaluate_at_start: evaluate the student before its first update too.
        evaluate_ema: evaluate the self teacher too, if it is an EMA. The names of its metrics begin
            with "ema/".
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
    keep_best: str | None = None
    evaluate_at_start: bool = False
    evaluate_ema: bool = False

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
    """How many devices each mesh axis has. `data=-1` takes the devices that the others leave.

    The rows of a batch are divided over `data` and `fsdp`. Parameters and optimiser state are
    divided over `fsdp` and `tensor`. Heads, MLP widths and the loss's tokens are divided over
    `tensor`. The slices of a pod are joined along `data`.
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
