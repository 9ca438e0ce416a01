"""From a schedule of batches to global arrays on the mesh, a few steps ahead of the update."""

import functools
import itertools
from collections.abc import Callable, Generator

import jax
import numpy as np
from jax.sharding import Mesh

from fastwhisper_jax.audio.log_mel import log_mel_spectrogram
from fastwhisper_jax.audio.spec_augment import spec_augment
from fastwhisper_jax.config import DataConfig
from fastwhisper_jax.data.batching import BatchLayout
from fastwhisper_jax.data.corpus import Corpus
from fastwhisper_jax.data.loader import (
    LoadInputs,
    Schedule,
    assemble_batch,
    prefetch_to_device,
    read_batches,
)
from fastwhisper_jax.training.random_keys import SPEC_AUGMENT, step_key
from fastwhisper_jax.training.sharding import batch_sharding, put_batch
from fastwhisper_jax.training.step import Batch

Featurise = Callable[[Batch, jax.typing.ArrayLike], Batch]


def make_featurise(n_mels: int, data: DataConfig, seed: int, augments: bool) -> Featurise:
    """Builds the jitted stage between reading and the step: audio becomes log-mel on the device.

    Args:
        n_mels: M.
        data: SpecAugment's sizes.
        seed: with the step it fixes the masks, so that a resumed run masks alike.
        augments: False leaves SpecAugment out (evaluation).

    Returns:
        (batch, step) -> batch: "audio" (B, A) and "frames" (B,) are replaced by "log_mel"
        (B, L, M); a batch without audio passes through.
    """

    @jax.jit
    def featurise(batch: Batch, step: jax.typing.ArrayLike) -> Batch:
        if "audio" not in batch:
            return batch
        rest = {name: x for name, x in batch.items() if name not in ("audio", "frames")}
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


def local_rows(mesh: Mesh, batch_size: int) -> tuple[int, ...]:
    """Numbers of the rows of a global batch that lie on this process's devices, rising.

    They follow from the mesh: on a pod, its order of devices is not that of the processes.
    """
    slices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    rows = np.arange(batch_size)
    return tuple(np.unique(np.concatenate([rows[index] for index in slices])).tolist())


def device_batches(
    schedule: Schedule,
    corpus: Corpus,
    load_inputs: LoadInputs,
    featurise: Featurise,
    mesh: Mesh,
    *,
    end_of_text: int,
    start_step: int = 0,
    threads: int = 2,
) -> Generator[Batch, None, None]:
    """Yields the batches of a schedule from `start_step` on, as the step takes them.

    Close it where it is not read to its end: its threads end with it.

    Args:
        schedule: which utterances stand in which batch.
        corpus: that the schedule's indices name.
        load_inputs: the encoder's input, or its cached output.
        featurise: the device's share of the work.
        mesh: rows are divided over all of it; each process loads its own.
        end_of_text: pads the labels.
        start_step: completed updates.
        threads: of background decoding.
    """
    assemble = functools.partial(
        assemble_batch,
        utterances=corpus.utterances,
        tokens=corpus.tokens,
        load_inputs=load_inputs,
        end_of_text=end_of_text,
    )

    def assemble_local(plan: BatchLayout) -> dict[str, np.ndarray]:
        return assemble(plan, local_rows=local_rows(mesh, len(plan.rows)))

    batches = read_batches(schedule, assemble_local, start_step=start_step, threads=threads)
    steps = itertools.count(start_step)
    return prefetch_to_device(
        batches, lambda batch: featurise(put_batch(batch, mesh), np.int32(next(steps)))
    )
