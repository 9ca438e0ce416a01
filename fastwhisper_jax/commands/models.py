"""Teacher and student of a recipe: loaded, cut, checked against each other."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fastwhisper_jax.config import Config
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.interop.load import LoadedModel, load_model, resolve_model
from fastwhisper_jax.models.dimensions import ModelDimensions
from fastwhisper_jax.models.student import kept_layers, student_dimensions, student_params
from fastwhisper_jax.training.sharding import put_array, tree_shardings


@dataclasses.dataclass(frozen=True)
class Pair:
    """A teacher, and the student that is cut from it (or from `student.path`).

    Attributes:
        teacher: as loaded.
        student_dims: sizes of the student.
        student_params: float32, before its first update, on the host.
        encoder_layers, decoder_layers: the layers that it keeps of what it was cut from.
        origin: folder of the model that it was cut from.
    """

    teacher: LoadedModel
    student_dims: ModelDimensions
    student_params: dict[str, Any]
    encoder_layers: tuple[int, ...]
    decoder_layers: tuple[int, ...]
    origin: Path


def load_pair(config: Config) -> Pair:
    """Loads the teacher and cuts the student.

    Raises:
        InputError: a model cannot be loaded, a layer does not exist, or the two do not share
            vocabulary and mel bins.
    """
    teacher = load_model(resolve_model(config.teacher.path))
    origin = teacher
    if config.student.path is not None:
        origin = load_model(resolve_model(config.student.path))
    for name in ("n_vocab", "n_mels"):
        theirs, ours = getattr(teacher.dims, name), getattr(origin.dims, name)
        if theirs != ours:
            raise InputError(
                f"{name} is {theirs} in teacher {config.teacher.path} and {ours} in student "
                f"{config.student.path}; they must be equal: cut the student from a model of the "
                "teacher's family"
            )
    encoder = kept_layers(
        config.student.encoder_layers, origin.dims.n_audio_layer, "student.encoder_layers"
    )
    decoder = kept_layers(
        config.student.decoder_layers, origin.dims.n_text_layer, "student.decoder_layers"
    )
    dims = student_dimensions(origin.dims, encoder, decoder, config.student.context_seconds)
    params = student_params(origin.params, dims, encoder, decoder)
    return Pair(teacher, dims, params, encoder, decoder, origin.folder)


def place_params(params: dict[str, Any], dtype: str, mesh: Mesh) -> dict[str, Any]:
    """Parameters that are on the host, in their compute dtype and divided over the mesh."""
    return jax.tree.map(
        lambda x, sharding: put_array(np.asarray(x, jnp.dtype(dtype)), sharding),
        params,
        tree_shardings(params, mesh),
    )
