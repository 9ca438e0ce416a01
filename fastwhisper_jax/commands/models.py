"""Teacher and student of a recipe: loaded, cut, checked against each other."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

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


class Cut(NamedTuple):
    """What a student is of the model that it is cut from.

    Attributes:
        dims: its sizes.
        encoder_layers, decoder_layers: the layers that it keeps.
    """

    dims: ModelDimensions
    encoder_layers: tuple[int, ...]
    decoder_layers: tuple[int, ...]


def cut_student(config: Config, teacher: ModelDimensions, origin: ModelDimensions) -> Cut:
    """How a recipe's student is cut, by the sizes of its teacher and of the model that it is of.

    Raises:
        InputError: the two do not share vocabulary and mel bins, a layer does not exist, or a
            window is too long.
    """
    student = config.student
    for name in ("n_vocab", "n_mels"):
        theirs, ours = getattr(teacher, name), getattr(origin, name)
        if theirs != ours:
            raise InputError(
                f"{name} is {theirs} in teacher {config.teacher.path} and {ours} in student "
                f"{student.path}; they must be equal: cut the student from a model of the "
                "teacher's family"
            )
    encoder = kept_layers(student.encoder_layers, origin.n_audio_layer, "student.encoder_layers")
    decoder = kept_layers(student.decoder_layers, origin.n_text_layer, "student.decoder_layers")
    dims = student_dimensions(teacher, origin, encoder, decoder, student.context_seconds)
    return Cut(dims, encoder, decoder)


def load_pair(config: Config) -> Pair:
    """Loads the teacher and cuts the student.

    Raises:
        InputError: a model cannot be loaded, or the student not be cut.
    """
    teacher = load_model(resolve_model(config.teacher.path))
    origin = teacher
    if config.student.path is not None:
        origin = load_model(resolve_model(config.student.path))
    cut = cut_student(config, teacher.dims, origin.dims)
    params = student_params(origin.params, cut.dims, cut.encoder_layers, cut.decoder_layers)
    return Pair(teacher, cut.dims, params, cut.encoder_layers, cut.decoder_layers, origin.folder)


def place_params(params: dict[str, Any], dtype: str, mesh: Mesh) -> dict[str, Any]:
    """Parameters that are on the host, in their compute dtype and divided over the mesh."""
    return jax.tree.map(
        lambda x, sharding: put_array(np.asarray(x, jnp.dtype(dtype)), sharding),
        params,
        tree_shardings(params, mesh),
    )
