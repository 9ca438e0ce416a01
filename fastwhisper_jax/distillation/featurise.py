"""The device's share of the work on a batch: audio becomes log-mel features, masked in training."""

import jax
import jax.numpy as jnp

from fastwhisper_jax.audio.log_mel import log_mel_spectrogram
from fastwhisper_jax.audio.spec_augment import spec_augment
from fastwhisper_jax.audio.windows import window_samples
from fastwhisper_jax.config import DataConfig
from fastwhisper_jax.training.random_keys import SPEC_AUGMENT, step_key
from fastwhisper_jax.training.task import Batch


def make_featurise(
    n_mels: int,
    data: DataConfig,
    seed: int,
    *,
    augments: bool,
    teacher_seconds: float | None = None,
    keeps_frames: bool = False,
) -> jax.stages.Wrapped:
    """Builds `Task.featurise`, under `jax.jit`.

    Args:
        n_mels: M.
        data: SpecAugment's sizes.
        seed: fixes the masks together with the step, so that a resumed run draws the same ones.
        augments: False leaves SpecAugment out (evaluation).
        teacher_seconds: the window of a teacher that is run on the batch; None where none is run.
        keeps_frames: the batch keeps "frames" as "speech_frames".

    Returns:
        (batch, step) -> batch: "log_mel" (B, L, M) replaces "audio" (B, A) and "frames" (B,). A
        teacher that would hear anything else gets "teacher_log_mel": its own window, without
        SpecAugment. A batch without audio is returned as it is.
    """
    masks = augments and data.augments_audio

    @jax.jit
    def featurise(batch: Batch, step: jax.typing.ArrayLike) -> Batch:
        if "audio" not in batch:
            return batch
        rest = {name: x for name, x in batch.items() if name not in ("audio", "frames")}
        if keeps_frames:
            rest["speech_frames"] = batch["frames"]
        audio = batch["audio"]
        if teacher_seconds is not None:
            missing = window_samples(teacher_seconds) - audio.shape[1]
            if missing or masks:
                padded = jnp.pad(audio, ((0, 0), (0, missing)))
                rest["teacher_log_mel"] = log_mel_spectrogram(padded, n_mels)
        log_mel = log_mel_spectrogram(audio, n_mels)
        if masks:
            log_mel = spec_augment(
                log_mel,
                step_key(seed, SPEC_AUGMENT, step),
                time_masks=data.time_masks,
                time_mask_frames=data.time_mask_frames,
                freq_masks=data.freq_masks,
                freq_mask_bins=data.freq_mask_bins,
                frames=batch["frames"],
            )
        return rest | {"log_mel": log_mel}

    return featurise
