"""From batch layouts to global arrays on the mesh, a few steps ahead of the update."""

import itertools
from collections.abc import Callable, Generator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from fastwhisper_jax.data.batching import BatchLayout
from fastwhisper_jax.data.loader import BatchLayouts, prefetch_to_device, read_batches
from fastwhisper_jax.training.sharding import batch_sharding, put_batch
from fastwhisper_jax.training.task import Batch, HostBatch


def local_rows(mesh: Mesh, batch_size: int) -> tuple[int, ...]:
    """Numbers of the rows of a global batch that are on this process's devices, rising.

    They follow from the mesh, for its order of devices need not be that of the processes.
    """
    slices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    rows = np.arange(batch_size)
    return tuple(np.unique(np.concatenate([rows[index] for index in slices])).tolist())


def device_batches(
    layouts: BatchLayouts,
    collate: Callable[[BatchLayout, Sequence[int]], HostBatch],
    featurise: Callable[[Batch, jax.typing.ArrayLike], Batch],
    mesh: Mesh,
    *,
    start_step: int = 0,
    threads: int = 2,
) -> Generator[Batch, None, None]:
    """Yields a run's batches from `start_step` on, as the step takes them.

    Close it if you do not read it to its end: its threads end with it.

    Args:
        layouts: which utterances are in which batch.
        collate: see `Task.collate`; each process makes its own rows.
        featurise: see `Task.featurise`.
        mesh: rows are divided over it.
        start_step: completed updates.
        threads: background threads that make batches.
    """

    def collate_local(layout: BatchLayout) -> HostBatch:
        return collate(layout, local_rows(mesh, len(layout.rows)))

    batches = read_batches(layouts, collate_local, start_step=start_step, threads=threads)
    steps = itertools.count(start_step)
    return prefetch_to_device(
        batches, lambda batch: featurise(put_batch(batch, mesh), np.int32(next(steps)))
    )
