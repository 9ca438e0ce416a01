"""The device mesh, and where every array of a run lies on it.

The mesh has three axes. `data` and `fsdp` divide the rows of a batch. `fsdp` also divides what is
stored: parameters, the optimiser's state and the earlier self, by the ordered rules below, of which
the first whose pattern is found in a leaf's path decides. `tensor` divides the layers themselves:
heads and MLP widths in storage and in computation, and the target tokens in the loss; the devices
along it share their rows. The vocabulary's size is odd for every published Whisper but one, so the
embedding is divided over its width.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fastwhisper_jax.errors import InputError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")
TOKEN_AXIS = "tensor"
BATCH = P(BATCH_AXES)

# (pattern, spec): a leaf whose path the pattern is found in lies as the spec says.
ShardingRules = Sequence[tuple[str, P]]


def make_mesh(
    data: int, fsdp: int, tensor: int = 1, devices: list[jax.Device] | None = None
) -> Mesh:
    """A mesh with the axes `data`, `fsdp` and `tensor`; `data` = -1 takes what the others leave.

    Devices of several slices, which only a data centre's network joins, are apart along `data`
    alone: over it travels one gradient an update, over the others the weights of every layer.

    Raises:
        InputError: the axes do not make up the number of devices, or an axis other than `data`
            would reach over several slices.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    copies = count // (fsdp * tensor) if data == -1 else data
    if copies * fsdp * tensor != count:
        raise InputError(
            f"mesh.data={data} x mesh.fsdp={fsdp} x mesh.tensor={tensor} does not make up {count} "
            f"devices; choose a product of {count}, or mesh.data=-1 with mesh.fsdp x mesh.tensor "
            f"a divisor of {count}"
        )
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if copies % slices:
        raise InputError(
            f"mesh.fsdp={fsdp} x mesh.tensor={tensor} reach over several of {slices} slices of "
            f"{count // slices} devices; only mesh.data may: choose a product that divides "
            f"{count // slices}"
        )
    # A 2 x 8 mesh on a 4 x 4 torus: one of its axes winds through two of the torus.
    if slices > 1:
        grid = mesh_utils.create_hybrid_device_mesh(
            (copies // slices, fsdp, tensor),
            (slices, 1, 1),
            devices,
            allow_split_physical_axes=True,
        )
    else:
        grid = mesh_utils.create_device_mesh(
            (copies, fsdp, tensor), devices, allow_split_physical_axes=True
        )
    # Auto axes: the compiler places what the rules leave open.
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_shards(mesh_shape: Mapping[str, int]) -> int:
    """Parts that the rows of a batch are divided into, by the sizes of a mesh's axes."""
    return math.prod(mesh_shape[axis] for axis in BATCH_AXES)


def check_batch(name: str, batch_size: int, mesh: Mesh, accumulation_steps: int = 1) -> None:
    """Raises InputError unless every micro-batch divides over the mesh."""
    shards = batch_shards(mesh.shape)
    multiple = shards * accumulation_steps
    if batch_size % multiple:
        micro = f" in {accumulation_steps} micro-batches" if accumulation_steps > 1 else ""
        raise InputError(
            f"{name}={batch_size} does not divide over {shards} devices on mesh axes "
            f"{BATCH_AXES}{micro}; use a multiple of {multiple}"
        )


def tree_shardings(tree: Any, rules: ShardingRules, mesh: Mesh) -> Any:
    """The sharding of every leaf of a tree of parameters, or of a state made of such trees.

    Args:
        tree: arrays, or shapes as from `jax.eval_shape`.
        rules: patterns of paths and what they lay where; the first that is found decides.
        mesh: with the axes of the rules.

    Raises:
        InputError: leaves that no rule matches, or that do not divide over the axes of theirs; all
            of them in one line.
    """
    faults = []

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = next((spec for pattern, spec in rules if re.search(pattern, name)), None)
        if spec is None:
            faults.append(f"no sharding rule matches {name} {leaf.shape}")
            return NamedSharding(mesh, P())
        for size, entry in zip(leaf.shape, spec, strict=False):
            axes = entry if isinstance(entry, tuple) else (entry,)
            sizes = {axis: mesh.shape[axis] for axis in axes if axis and mesh.shape[axis] > 1}
            if size % math.prod(sizes.values()):
                over = " x ".join(f"{axis}={parts}" for axis, parts in sizes.items())
                faults.append(f"{name} {leaf.shape}: {size} does not divide over {over}")
        return NamedSharding(mesh, spec)

    shardings = jax.tree_util.tree_map_with_path(place, tree)
    if faults:
        raise InputError("; ".join(faults) + "; change mesh.fsdp or mesh.tensor")
    return shardings


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over `data` and `fsdp`, whole along `tensor`."""
    return NamedSharding(mesh, BATCH)


def put_array(host: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """A global array of what every process holds whole: each device is sent its own part alone.

    Unlike `jax.device_put`, it asks no other process whether it holds the same.
    """
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays of this process's rows of a batch."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()
    }
