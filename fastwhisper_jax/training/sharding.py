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
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.models.dimensions import ModelDimensions, ModelOptions, Rematerialise

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")
TOKEN_AXIS = "tensor"
BATCH = P(BATCH_AXES)
# Of the embedding, from the axis that divides it first: the neighbours along `fsdp` then hold
# neighbouring columns, and those along `tensor` whole stretches of them.
WIDTH_AXES = ("tensor", "fsdp")

RULES: tuple[tuple[str, P], ...] = (
    (r"layers/.*/(query|key|value|fc1)/kernel$", P(None, "fsdp", "tensor")),
    (r"layers/.*/(query|value|fc1)/bias$", P(None, "tensor")),
    (r"layers/.*/(out|fc2)/kernel$", P(None, "tensor", "fsdp")),
    (r"layers/.*/(scale|bias)$", P()),
    (r"conv[12]/kernel$", P(None, None, WIDTH_AXES)),
    (r"embed_tokens$", P(None, WIDTH_AXES)),
    (r"positions$", P(None, WIDTH_AXES)),
    (r"(scale|bias)$", P()),
    (r"(step|count)$", P()),
)


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


def model_options(
    mesh: Mesh,
    dtype: str,
    rematerialise: Rematerialise = "nothing",
    dropout: float = 0.0,
    *,
    trains_encoder: bool = False,
) -> ModelOptions:
    """How to compute a model whose batch is divided over a mesh."""
    # By the mesh, not by the process's own devices: a plan compiles for others.
    platform = mesh.devices.flat[0].platform
    is_one_cpu = mesh.size == 1 and platform == "cpu"
    attention: Literal["together", "by_head", "fused"] = "by_head" if is_one_cpu else "together"
    if platform == "tpu":
        attention = "fused"
    return ModelOptions(
        dtype=dtype,
        rematerialise=rematerialise,
        dropout=dropout,
        attention=attention,
        encodes_by_row=is_one_cpu and not trains_encoder,
        activations=batch_sharding(mesh) if mesh.size > 1 else None,
        parameter_axis="fsdp" if mesh.size > 1 else None,
        tensor_axis="tensor" if mesh.shape["tensor"] > 1 else None,
    )


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


def check_tensor_axis(
    models: dict[str, ModelDimensions], lengths: Sequence[int], mesh: Mesh
) -> None:
    """Checks that heads and target tokens divide over the axis `tensor`.

    Args:
        models: sizes by name, for the error.
        lengths: T of every batch.
        mesh: with that axis.

    Raises:
        InputError: some do not; all of them in one line.
    """
    size = mesh.shape["tensor"]
    faults = [
        f"the {name}'s {heads} heads do not"
        for name, dims in models.items()
        for heads in sorted({dims.n_audio_head, dims.n_text_head})
        if heads % size
    ]
    faults += [f"batches of {length} target tokens do not" for length in lengths if length % size]
    if faults:
        raise InputError(f"{'; '.join(faults)} divide over mesh.tensor={size}; change mesh.tensor")


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
    """The sharding of every leaf of a tree of parameters, or of a state made of such trees.

    Args:
        tree: arrays, or shapes as from `jax.eval_shape`.
        mesh: with the axes of the rules.

    Raises:
        InputError: leaves that no rule matches, or that do not divide over the axes of theirs; all
            of them in one line.
    """
    faults = []

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = next((spec for pattern, spec in RULES if re.search(pattern, name)), None)
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
