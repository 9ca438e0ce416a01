"""How the models of a run are computed on its mesh."""

from collections.abc import Sequence
from typing import Literal

from jax.sharding import Mesh

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.models.options import ModelOptions, Rematerialise
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.training.sharding import batch_sharding


def model_options(
    mesh: Mesh,
    dtype: str,
    rematerialise: Rematerialise = "nothing",
    dropout: float = 0.0,
    *,
    trains_encoder: bool = False,
) -> ModelOptions:
    """Chooses how to compute a model whose batch is divided over a mesh."""
    # The mesh decides, not this process's devices: `fastwhisper plan` compiles for other devices.
    platform = mesh.devices.flat[0].platform
    is_one_cpu = mesh.size == 1 and platform == "cpu"
    attention: Literal["xla", "per_head", "pallas"] = "per_head" if is_one_cpu else "xla"
    if platform == "tpu":
        attention = "pallas"
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


def check_tensor_axis(
    models: dict[str, ModelDimensions], lengths: Sequence[int], mesh: Mesh
) -> None:
    """Checks that heads and target tokens divide over the axis `tensor`.

    Args:
        models: sizes by the name that the error uses.
        lengths: every T that batches have.
        mesh: the run's mesh.

    Raises:
        InputError: heads or tokens do not divide. One line names all of them.
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
