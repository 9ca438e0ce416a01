"""What a recipe says: frozen dataclasses, checked when they are made.

A recipe is a Python file that binds `config = Config(...)`. Lengths of schedules (`begin`,
`steps`, `warmup`) count completed updates when they are ints, and are fractions of the run's
total when they are floats.
"""

import dataclasses
import math
from typing import Literal

from fastwhisper_jax.errors import InputError


def _check(section: object, rules: dict[str, tuple[bool, str]]) -> None:
    """Raises one InputError that lists every field of a section that breaks its rule."""
    broken = [
        f"{name}={getattr(section, name)!r} {must}"
        for name, (holds, must) in rules.items()
        if not holds
    ]
    if broken:
        raise InputError(f"{type(section).__name__}: " + "; ".join(broken))


def _is_length(value: int | float) -> bool:
    return value >= 0 and (isinstance(value, int) or value <= 1.0)


LENGTH_RULE = "must be a count of updates (int) or a fraction of the run (float, 0.0 to 1.0)"


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """A weight over the steps of a run.

    The value is `init_value` up to step `begin`, then moves to `end_value` over `steps` updates
    along the curve `kind`, and stays there. "constant" is `init_value` throughout; "piecewise"
    takes the value `values[i]` from `boundaries[i]` on, and `init_value` before.
    """

    kind: Literal["constant", "linear", "cosine", "exponential", "piecewise"] = "constant"
    init_value: float = 0.0
    end_value: float = 0.0
    begin: int | float = 0
    steps: int | float = 1.0
    boundaries: tuple[int | float, ...] = ()
    values: tuple[float, ...] = ()

    @property
    def peak(self) -> float:
        """The largest weight that the schedule can take."""
        end_value = 0.0 if self.kind in ("constant", "piecewise") else self.end_value
        return max(self.init_value, end_value, *self.values)

    def __post_init__(self) -> None:
        piecewise = self.kind == "piecewise"
        weights = (self.init_value, self.end_value, *self.values)
        _check(
            self,
            {
                "init_value": (
                    all(0 <= w < math.inf for w in weights),
                    "weights must be at least 0",
                ),
                "begin": (_is_length(self.begin), LENGTH_RULE),
                "steps": (_is_length(self.steps) and self.steps > 0, LENGTH_RULE + ", above 0"),
                "boundaries": (all(map(_is_length, self.boundaries)), LENGTH_RULE),
                "values": (
                    len(self.values) == len(self.boundaries) and piecewise == bool(self.values),
                    "must hold one value a boundary, for kind='piecewise' only",
                ),
                "end_value": (
                    self.kind != "exponential" or min(self.init_value, self.end_value) > 0,
                    "an exponential curve cannot start or end at 0",
                ),
            },
        )


@dataclasses.dataclass(frozen=True)
class TeacherConfig:
    """The teacher: a Hugging Face folder or hub id, and its compute dtype."""

    path: str = "openai/whisper-base"
    dtype: Literal["float32", "bfloat16"] = "float32"


@dataclasses.dataclass(frozen=True)
class StudentConfig:
    """How the student is cut out of its teacher.

    Attributes:
        path: a Hugging Face folder or hub id to cut the student from instead of the teacher; it
            must share the teacher's vocabulary and mel bins.
        encoder_layers: None for all, a count (spread as far apart as possible), or indices.
        decoder_layers: the same for the decoder.
        context_seconds: length of the audio window, at most the teacher's 30 s.
        frozen: paths of parameters that are not trained: a stack ("encoder"), a part of one
            ("decoder/embed_tokens"). Encoder positions are never trained.
        dropout: residual dropout rate while training.
        dtype: compute dtype; parameters are float32.
        rematerialise: trade time for memory in the backward pass.
    """

    path: str | None = None
    encoder_layers: int | tuple[int, ...] | None = None
    decoder_layers: int | tuple[int, ...] | None = 2
    context_seconds: float = 30.0
    frozen: tuple[str, ...] = ("encoder",)
    dropout: float = 0.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    rematerialise: bool = False

    def __post_init__(self) -> None:
        _check(self, {"dropout": (0 <= self.dropout < 1, "must lie in [0, 1)")})


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the speech comes from, and how it becomes batches.

    Attributes:
        train: manifests or Hugging Face datasets to train on.
        eval: the same to evaluate on while training (may be empty).
        language: of lines that name none; ignored by English-only models.
        task: "transcribe" or "translate".
        target_buckets: lengths T that label sequences (prompt included) are padded to; one
            compile each.
        concatenate_probability: chance that an utterance is joined to the one before it, while
            the sum fits the context.
        time_masks, time_mask_frames, freq_masks, freq_mask_bins: SpecAugment, 0 masks is off.
        encoder_cache: folder for what the frozen encoder (float16) and the teacher's decoder make
            of each utterance, computed once; None is off. It excludes augmentation of the audio.
        threads: of background decoding.
    """

    train: tuple[str, ...] = ()
    eval: tuple[str, ...] = ()
    language: str = "en"
    task: Literal["transcribe", "translate"] = "transcribe"
    target_buckets: tuple[int, ...] = (32, 64, 128, 256, 448)
    concatenate_probability: float = 0.0
    time_masks: int = 0
    time_mask_frames: int = 50
    freq_masks: int = 0
    freq_mask_bins: int = 10
    encoder_cache: str | None = None
    threads: int = 2

    @property
    def augments_audio(self) -> bool:
        return self.concatenate_probability > 0 or self.time_masks > 0 or self.freq_masks > 0

    def __post_init__(self) -> None:
        buckets = self.target_buckets
        _check(
            self,
            {
                "target_buckets": (
                    bool(buckets) and buckets[0] > 0 and list(buckets) == sorted(set(buckets)),
                    "must be ascending lengths above 0",
                ),
                "concatenate_probability": (
                    0 <= self.concatenate_probability <= 1,
                    "must lie in [0, 1]",
                ),
                "threads": (self.threads > 0, "must be at least 1"),
                "encoder_cache": (
                    self.encoder_cache is None or not self.augments_audio,
                    "cannot be used with concatenation or SpecAugment, which change the encoder's "
                    "input every epoch; turn one of them off",
                ),
            }
            | {
                name: (getattr(self, name) >= 0, "must be at least 0")
                for name in ("time_masks", "time_mask_frames", "freq_masks", "freq_mask_bins")
            },
        )


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """The ASKD objective: its weights over the steps, and the self teacher.

    Attributes:
        teacher_weight: a(s).
        self_weight: m(s); the self-distillation phase begins where it first rises above 0.
        ce_weight: c(s) as a constant, or None for the complement 1 - a(s) - m(s).
        temperature: tau of both KL terms.
        adaptive_gate: a token whose teacher argmax is not the label gives its teacher weight to
            cross-entropy. Does nothing where labels are this teacher's greedy pseudo-labels.
        self_teacher: "ema" of the student's parameters, or a "snapshot" of them.
        ema_decay: of the EMA, per update.
        snapshot_steps: updates between two snapshots.
        chunk_tokens: target positions a chunk of the loss projects at once, all rows of the
            batch together.
    """

    teacher_weight: ScheduleConfig = ScheduleConfig(init_value=1.0)
    self_weight: ScheduleConfig = ScheduleConfig()
    ce_weight: float | None = 0.8
    temperature: float = 2.0
    adaptive_gate: bool = False
    self_teacher: Literal["ema", "snapshot"] = "ema"
    ema_decay: float = 0.999
    snapshot_steps: int = 1000
    chunk_tokens: int = 512

    @property
    def has_self_phase(self) -> bool:
        """Whether the student is to learn from its earlier self at some step."""
        return self.self_weight.peak > 0

    @property
    def has_teacher(self) -> bool:
        """Whether the teacher is to be learnt from at some step."""
        return self.teacher_weight.peak > 0

    def __post_init__(self) -> None:
        _check(
            self,
            {
                "ce_weight": (self.ce_weight is None or self.ce_weight >= 0, "must be at least 0"),
                "temperature": (self.temperature > 0, "must be above 0"),
                "ema_decay": (0 <= self.ema_decay < 1, "must lie in [0, 1)"),
                "snapshot_steps": (self.snapshot_steps > 0, "must be at least 1"),
                "chunk_tokens": (self.chunk_tokens > 0, "must be at least 1"),
            },
        )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with global-norm clipping, linear warm-up and a decay to `end_learning_rate`.

    Weight decay leaves out biases, norms and positions.
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
        _check(
            self,
            {
                "learning_rate": (self.learning_rate > 0, "must be above 0"),
                "end_learning_rate": (self.end_learning_rate >= 0, "must be at least 0"),
                "warmup": (_is_length(self.warmup), LENGTH_RULE),
                "weight_decay": (self.weight_decay >= 0, "must be at least 0"),
                "beta1": (0 <= self.beta1 < 1, "must lie in [0, 1)"),
                "beta2": (0 <= self.beta2 < 1, "must lie in [0, 1)"),
                "clip_norm": (self.clip_norm > 0, "must be above 0"),
            },
        )


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Length and rhythm of a run.

    Attributes:
        global_batch_size: utterances an update, over all devices and micro-batches.
        accumulation_steps: micro-batches an update is computed in; changes memory, not the result.
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
        batch, micro = self.global_batch_size, self.accumulation_steps
        positive = (
            "global_batch_size",
            "accumulation_steps",
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
        _check(self, rules)
        length = self.epochs if self.steps is None else self.steps
        _check(
            self,
            {
                "epochs": (length is not None and length > 0, "or steps must be at least 1"),
                "accumulation_steps": (
                    batch % micro == 0,
                    f"must divide global_batch_size={batch}",
                ),
            },
        )


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How devices are laid out. `data` of -1 takes the devices that `fsdp` leaves.

    The batch is divided over both axes; parameters and optimiser state over `fsdp`.
    """

    data: int = -1
    fsdp: int = 1

    def __post_init__(self) -> None:
        _check(
            self,
            {
                "data": (
                    self.data == -1 or self.data > 0,
                    "must be at least 1, or -1 for the rest",
                ),
                "fsdp": (self.fsdp > 0, "must be at least 1"),
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
        if self.data.encoder_cache is not None and not self.frozen_encoder_is_teachers:
            student = self.student
            raise InputError(
                f"data.encoder_cache={self.data.encoder_cache!r} needs the teacher's own encoder, "
                f"whole and frozen, got student.frozen={student.frozen}, path={student.path}, "
                f"encoder_layers={student.encoder_layers}, "
                f"context_seconds={student.context_seconds}; change those, or set "
                "data.encoder_cache=none"
            )

    @property
    def frozen_encoder_is_teachers(self) -> bool:
        """Whether one encoder, run once, serves teacher and student."""
        student = self.student
        whole = student.path is None and student.encoder_layers is None
        return whole and "encoder" in student.frozen and student.context_seconds == 30.0
