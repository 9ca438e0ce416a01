"""The device mesh, and where every array of a run lies on it.

The batch is divided over both mesh axes. Parameters, the optimiser's state and the earlier self are
divided over `fsdp` by the ordered rules below: the first pattern found in a leaf's path decides.
The vocabulary's size is odd for every published Whisper but one, so the embedding is divided over
its width.
"""

import math
import re
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.models.dimensions import ModelOptions

BATCH_AXES = ("data", "fsdp")
BATCH = P(BATCH_AXES)
PARAMETER_AXIS = "fsdp"

RULES: tuple[tuple[str, P], ...] = (
    (r"layers/.*/(query|key|value|fc1)/kernel$", P(None, "fsdp", None)),
    (r"layers/.*/(out|fc2)/kernel$", P(None, None, "fsdp")),
    (r"layers/.*/(scale|bias)$", P()),
    (r"conv[12]/kernel$", P(None, None, "fsdp")),
    (r"embed_tokens$", P(None, "fsdp")),
    (r"positions$", P(None, "fsdp")),
    (r"(scale|bias)$", P()),
    (r"(step|count)$", P()),
)


def make_mesh(data: int, fsdp: int, devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh with the axes `data` and `fsdp`; `data` = -1 takes what `fsdp` leaves.

    Raises:
        InputError: the axes do not make up the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    rows = count // fsdp if data == -1 else data
    if rows * fsdp != count:
        raise InputError(
            f"mesh.data={data} x mesh.fsdp={fsdp} does not make up {count} devices; "
            f"choose a product of {count}, or mesh.data=-1 with mesh.fsdp a divisor of {count}"
        )
    # Auto axes: the compiler places what the rules leave open.
    axis_types = (AxisType.Auto, AxisType.Auto)
    # A 2 x 8 mesh on a 4 x 4 torus: one of its axes winds through two of the torus.
    grid = mesh_utils.create_device_mesh((rows, fsdp), devices, allow_split_physical_axes=True)
    return Mesh(grid, BATCH_AXES, axis_types=axis_types)


def model_options(
    mesh: Mesh, dtype: str, rematerialise: bool = False, dropout: float = 0.0
) -> ModelOptions:
    """How to compute a model whose batch is divided over a mesh."""
    # By the mesh, not by the process's own devices: a plan compiles for others.
    attention: Literal["together", "by_head", "fused"] = "together"
    if mesh.devices.flat[0].platform == "tpu":
        attention = "fused"
    elif mesh.size == 1 and mesh.devices.flat[0].platform == "cpu":
        attention = "by_head"
    return ModelOptions(
        dtype=dtype,
        rematerialise=rematerialise,
        dropout=dropout,
        attention=attention,
        activations=batch_sharding(mesh) if mesh.size > 1 else None,
        parameter_axis=PARAMETER_AXIS if mesh.size > 1 else None,
    )


def check_batch(name: str, batch_size: int, mesh: Mesh, accumulation_steps: int = 1) -> None:
    """Raises InputError unless every micro-batch divides over the mesh."""
    multiple = mesh.size * accumulation_steps
    if batch_size % multiple:
        micro = f" in {accumulation_steps} micro-batches" if accumulation_steps > 1 else ""
        raise InputError(
            f"{name}={batch_size} does not divide over {mesh.size} devices on mesh axes "
            f"{BATCH_AXES}{micro}; use a multiple of {multiple}"
        )


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
    """The sharding of every leaf of a tree of parameters, or of a state made of such trees.

    Args:
        tree: arrays, or shapes as from `jax.eval_shape`.
        mesh: with the axis `fsdp`.

    Raises:
        InputError: leaves that no rule matches, or whose divided axis `fsdp` does not divide; all
            of them in one line.
    """
    faults = []

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = next((spec for pattern, spec in RULES if re.search(pattern, name)), None)
        if spec is None:
            faults.append(f"no sharding rule matches {name} {leaf.shape}")
            return NamedSharding(mesh, P())
        for size, axis in zip(leaf.shape, spec, strict=False):
            if axis is not None and size % mesh.shape[axis]:
                faults.append(
                    f"{name} {leaf.shape}: {size} does not divide over {axis}={mesh.shape[axis]}"
                )
        return NamedSharding(mesh, spec)

    shardings = jax.tree_util.tree_map_with_path(place, tree)
    if faults:
        raise InputError("; ".join(faults) + "; change mesh.fsdp")
    return shardings


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over all devices."""
    return NamedSharding(mesh, BATCH)


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays of this process's rows of a batch."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()
    }


def bytes_per_device(tree: Any, shardings: Any) -> int:
    """Bytes that a tree of shapes takes on each device under its shardings."""
    sizes = jax.tree.map(
        lambda x, s: math.prod(s.shard_shape(x.shape)) * x.dtype.itemsize, tree, shardings
    )
    return sum(jax.tree.leaves(sizes))
