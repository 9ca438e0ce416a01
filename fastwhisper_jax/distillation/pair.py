"""Teacher and student of a recipe: loaded, cut, checked against each other."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fastwhisper_jax.config import Config
from fastwhisper_jax.distillation.assembly import Models
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.export.hf_load import LoadedModel, load_model, resolve_model
from fastwhisper_jax.files import path_of
from fastwhisper_jax.models.student import kept_layers, student_dimensions, student_params
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.sharding_rules import RULES
from fastwhisper_jax.training.sharding import put_array, tree_shardings


@dataclasses.dataclass(frozen=True)
class Pair:
    """A teacher, and the student that is cut from it (or from `student.path`).

    Attributes:
        teacher: as loaded.
        student_dims: sizes of the student.
        student_params: float32, before its first update, on the host.
        encoder_layers, decoder_layers: the layers that it keeps of what it was cut from.
        shares_encoder: its encoder is the teacher's, see `Cut`.
        origin: folder of the model that it was cut from.
    """

    teacher: LoadedModel
    student_dims: ModelDimensions
    student_params: dict[str, Any]
    encoder_layers: tuple[int, ...]
    decoder_layers: tuple[int, ...]
    shares_encoder: bool
    origin: Path


class Cut(NamedTuple):
    """What a student is of the model that it is cut from.

    Attributes:
        dims: its sizes.
        encoder_layers, decoder_layers: the layers that it keeps.
        shares_encoder: one encoder, run once, serves teacher and student: it is the teacher's own,
            frozen, with all of its layers and the same window.
    """

    dims: ModelDimensions
    encoder_layers: tuple[int, ...]
    decoder_layers: tuple[int, ...]
    shares_encoder: bool


def cut_student(config: Config, teacher: ModelDimensions, origin: ModelDimensions) -> Cut:
    """How a recipe's student is cut, by the sizes of its teacher and of the model that it is of.

    Raises:
        InputError: the two do not share vocabulary and mel bins, a layer does not exist, a window
            is too long, or there is an encoder cache and no shared encoder.
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
    shares_encoder = (
        is_of_teacher(config)
        and "encoder" in student.frozen
        and len(encoder) == teacher.n_audio_layer
        and dims.n_audio_ctx == teacher.n_audio_ctx
    )
    if config.data.encoder_cache is not None and not shares_encoder:
        raise InputError(
            f"data.encoder_cache={config.data.encoder_cache!r} needs the teacher's own encoder, "
            f"whole and frozen, got student.frozen={student.frozen}, path={student.path}, "
            f"encoder_layers={student.encoder_layers}, context_seconds={student.context_seconds}; "
            "change those, or set data.encoder_cache=none"
        )
    return Cut(dims, encoder, decoder, shares_encoder)


def is_of_teacher(config: Config) -> bool:
    """Whether the student is cut from the teacher itself, however `student.path` spells it."""
    path = config.student.path
    if path is None:
        return True
    return path_of(path).resolve() == path_of(config.teacher.path).resolve()


def load_pair(config: Config) -> Pair:
    """Loads the teacher and cuts the student.

    Raises:
        InputError: a model cannot be loaded, or the student not be cut.
    """
    teacher = load_model(resolve_model(config.teacher.path))
    origin = teacher
    if config.student.path is not None and not is_of_teacher(config):
        origin = load_model(resolve_model(config.student.path))
    cut = cut_student(config, teacher.dims, origin.dims)
    params = student_params(origin.params, cut.dims, cut.encoder_layers, cut.decoder_layers)
    return Pair(
        teacher=teacher,
        student_dims=cut.dims,
        student_params=params,
        encoder_layers=cut.encoder_layers,
        decoder_layers=cut.decoder_layers,
        shares_encoder=cut.shares_encoder,
        origin=origin.folder,
    )


def place_params(params: dict[str, Any], dtype: str, mesh: Mesh) -> dict[str, Any]:
    """Parameters that are on the host, in their compute dtype and divided over the mesh."""
    return jax.tree.map(
        lambda x, sharding: put_array(np.asarray(x, jnp.dtype(dtype)), sharding),
        params,
        tree_shardings(params, RULES, mesh),
    )


def place_models(pair: Pair, dtype: str, mesh: Mesh) -> Models:
    """What a run trains with: the teacher in its dtype on the mesh, the student's shapes."""
    return Models(
        teacher_dims=pair.teacher.dims,
        teacher_params=place_params(pair.teacher.params, dtype, mesh),
        student_dims=pair.student_dims,
        student_params=jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), pair.student_params
        ),
        shares_encoder=pair.shares_encoder,
    )
