"""The device's share of the work on a batch: audio becomes log-mel features, masked in training."""

import jax

from fastwhisper_jax.audio.log_mel import log_mel_spectrogram
from fastwhisper_jax.audio.spec_augment import spec_augment
from fastwhisper_jax.config import DataConfig
from fastwhisper_jax.training.random_keys import SPEC_AUGMENT, step_key
from fastwhisper_jax.training.task import Batch


def make_featurise(
    n_mels: int, data: DataConfig, seed: int, *, augments: bool, keeps_frames: bool = False
) -> jax.stages.Wrapped:
    """Builds `Task.featurise`, under `jax.jit`.

    Args:
        n_mels: M.
        data: SpecAugment's sizes.
        seed: fixes the masks together with the step, so that a resumed run draws the same ones.
        augments: False leaves SpecAugment out (evaluation).
        keeps_frames: the batch keeps "frames" as "speech_frames".

    Returns:
        (batch, step) -> batch: "log_mel" (B, L, M) replaces "audio" (B, A) and "frames" (B,). A
        batch without audio is returned as it is.
    """

    @jax.jit
    def featurise(batch: Batch, step: jax.typing.ArrayLike) -> Batch:
        if "audio" not in batch:
            return batch
        rest = {name: x for name, x in batch.items() if name not in ("audio", "frames")}
        if keeps_frames:
            rest["speech_frames"] = batch["frames"]
        log_mel = log_mel_spectrogram(batch["audio"], n_mels)
        if augments and (data.time_masks or data.freq_masks):
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
