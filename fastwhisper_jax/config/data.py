"""The `data` section of a recipe."""

import dataclasses
from typing import Literal

from fastwhisper_jax.config.checks import check_rules, check_types
from fastwhisper_jax.config.eval_sets import eval_sets, fault_of_sources


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The sources of the speech, and how utterances become batches.

    Attributes:
        train: manifests or Hugging Face datasets to train on.
        eval: manifests or Hugging Face datasets to evaluate on while training; may be empty.
            "NAME=PATH" puts one into the eval set of that name, which is scored apart.
        language: language of utterances that name none. English-only models ignore it.
        task: "transcribe" or "translate".
        target_buckets: lengths T that label sequences, with their prompt, are padded to. Each
            length is compiled once.
        concatenate_probability: chance that an utterance is joined to the one before it. Joined
            utterances never exceed the student's longest window.
        longer_window_probability: chance that a row goes to a longer window than it needs, so that
            the student learns to hear silence too.
        timestamp_probability: chance that the label of a row has timestamps. With 0 the student
            learns no timestamps, and transcription cuts its recordings at pauses.
        time_masks, time_mask_frames, freq_masks, freq_mask_bins: SpecAugment; 0 masks turn it off.
        cache: folder that keeps what frozen models compute of each utterance, so that it is
            computed once: the output of the teacher's decoder, and that of the student's encoder
            (float16) if it is frozen and SpecAugment is off. None turns it off. It cannot be used
            together with concatenation.
        threads: threads that read and decode audio in the background.
    """

    train: tuple[str, ...] = ()
    eval: tuple[str, ...] = ()
    language: str = "en"
    task: Literal["transcribe", "translate"] = "transcribe"
    target_buckets: tuple[int, ...] = (32, 64, 128, 256, 448)
    concatenate_probability: float = 0.0
    longer_window_probability: float = 0.0
    timestamp_probability: float = 0.0
    time_masks: int = 0
    time_mask_frames: int = 50
    freq_masks: int = 0
    freq_mask_bins: int = 10
    cache: str | None = None
    threads: int = 2

    @property
    def augments_audio(self) -> bool:
        """Whether SpecAugment masks what the student hears."""
        return self.time_masks > 0 or self.freq_masks > 0

    @property
    def eval_sets(self) -> dict[str, tuple[str, ...]]:
        """The paths of each eval set by its name; "" is the set without a name."""
        return eval_sets(self.eval)

    def __post_init__(self) -> None:
        check_types(self)
        fault = fault_of_sources(self.eval)
        buckets = self.target_buckets
        check_rules(
            self,
            {
                "eval": (not fault, fault),
                "target_buckets": (
                    bool(buckets) and buckets[0] > 0 and list(buckets) == sorted(set(buckets)),
                    "must be ascending lengths above 0",
                ),
                "threads": (self.threads > 0, "must be at least 1"),
                "cache": (
                    self.cache is None or not self.concatenate_probability,
                    "cannot be used with concatenation, which makes other rows every epoch: set "
                    "cache to none, or concatenate_probability to 0",
                ),
            }
            | {
                name: (0 <= getattr(self, name) <= 1, "must lie in [0, 1]")
                for name in (
                    "concatenate_probability",
                    "longer_window_probability",
                    "timestamp_probability",
                )
            }
            | {
                name: (getattr(self, name) >= 0, "must be at least 0")
                for name in ("time_masks", "time_mask_frames", "freq_masks", "freq_mask_bins")
            },
        )
