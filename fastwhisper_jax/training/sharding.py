"""The device mesh, and how every array of a run is divided over it.

The mesh has three axes. `data` and `fsdp` divide the rows of a batch. `fsdp` also divides what is
stored: parameters, the optimiser's state and the self teacher. `tensor` divides the layers
themselves: heads and MLP widths in storage and in computation, and the target tokens in the loss.
The devices along `tensor` share their rows. A model family's ordered rules say how each leaf is
divided: the first rule whose pattern is found in the leaf's path decides.
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

# (pattern, spec): the spec says how a leaf is divided if the pattern is found in its path.
ShardingRules = Sequence[tuple[str, P]]


def make_mesh(
    data: int, fsdp: int, tensor: int = 1, devices: list[jax.Device] | None = None
) -> Mesh:
    """Makes a mesh with the axes `data`, `fsdp` and `tensor`.

    `data` = -1 takes the devices that the other axes leave. Several slices, which only the data
    centre's network joins, are joined along `data`: one gradient an update travels along that axis,
    the weights of every layer along the others.

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
    # An axis may use several axes of the torus, as the 8 of a 2 x 8 mesh does on a 4 x 4 torus.
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
    # With Auto axes the compiler chooses the sharding of arrays that no rule names.
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_shards(mesh_shape: Mapping[str, int]) -> int:
    """How many parts the rows of a batch are divided into, from the sizes of the mesh's axes."""
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
        rules: ordered (pattern, spec) pairs.
        mesh: with the axes of the rules.

    Raises:
        InputError: no rule matches a leaf, or a leaf does not divide over the axes of its rule. One
            line names all such leaves.
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
    """Divides rows over `data` and `fsdp`; devices along `tensor` hold the same rows."""
    return NamedSharding(mesh, BATCH)


def put_array(host: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Makes a global array of an array that every process holds; each device gets its own part.

    `jax.device_put` would compare the array between processes first; this does not.
    """
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays of this process's rows of a batch."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()
    }
