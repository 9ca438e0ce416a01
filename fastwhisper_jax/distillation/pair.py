"""Teacher and student of a recipe: loaded, initialised, checked against each other, placed."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fastwhisper_jax.audio.windows import Windows, check_windows, window_positions
from fastwhisper_jax.config import Config
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.export.hf_load import LoadedModel, load_model, resolve_model
from fastwhisper_jax.files import path_of
from fastwhisper_jax.models.student import kept_layers, student_dimensions, student_params
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.sharding_rules import RULES
from fastwhisper_jax.training.sharding import put_array, tree_shardings
from fastwhisper_jax.training.state import split_params

# Whisper's encoder positions are sinusoids, which are never trained.
ALWAYS_FROZEN = ("encoder/positions",)


class StudentSpec(NamedTuple):
    """What a student keeps of the model that it is initialised from.

    Attributes:
        dims: its sizes.
        encoder_layers, decoder_layers: the layers that it keeps.
        shares_encoder: one encoder serves teacher and student: it is the teacher's own, frozen,
            with all of its layers and positions. In a window that both hear, it is run once.
        windows: the lengths of audio that it hears.
    """

    dims: ModelDimensions
    encoder_layers: tuple[int, ...]
    decoder_layers: tuple[int, ...]
    shares_encoder: bool
    windows: Windows


class PairShapes(NamedTuple):
    """All that is static about a teacher and its student.

    Attributes:
        teacher_dims: the teacher's sizes.
        student: what the student is.
        student_params: shapes and dtypes of the student's parameters.
    """

    teacher_dims: ModelDimensions
    student: StudentSpec
    student_params: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class LoadedPair:
    """A teacher and the student that is initialised from it (or from `student.path`), on the host.

    Attributes:
        teacher: as loaded.
        student: what the student is.
        student_params: float32, before the first update.
        origin: folder of the model that the student is initialised from.
    """

    teacher: LoadedModel
    student: StudentSpec
    student_params: dict[str, Any]
    origin: Path

    @property
    def shapes(self) -> PairShapes:
        """The pair without its parameters."""
        student_params = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self.student_params
        )
        return PairShapes(self.teacher.dims, self.student, student_params)


def student_spec(config: Config, teacher: ModelDimensions, origin: ModelDimensions) -> StudentSpec:
    """What a recipe's student keeps, from the sizes of its teacher and of its origin.

    Raises:
        InputError: the two do not share vocabulary and mel bins, a layer does not exist, or a
            window is not possible.
    """
    student = config.student
    for name in ("n_vocab", "n_mels"):
        theirs, ours = getattr(teacher, name), getattr(origin, name)
        if theirs != ours:
            raise InputError(
                f"{name} is {theirs} in teacher {config.teacher.path} and {ours} in student "
                f"{student.path}; they must be equal: initialise the student from a model of the "
                "teacher's family"
            )
    encoder = kept_layers(student.encoder_layers, origin.n_audio_layer, "student.encoder_layers")
    decoder = kept_layers(student.decoder_layers, origin.n_text_layer, "student.decoder_layers")
    windows = _windows(config, teacher, origin)
    dims = student_dimensions(origin, encoder, decoder, window_positions(windows.longest))
    shares_encoder = (
        is_of_teacher(config)
        and "encoder" in student.frozen
        and len(encoder) == teacher.n_audio_layer
        and dims.n_audio_ctx == teacher.n_audio_ctx
    )
    return StudentSpec(dims, encoder, decoder, shares_encoder, windows)


def _windows(config: Config, teacher: ModelDimensions, origin: ModelDimensions) -> Windows:
    """The student's windows, none longer than what both models hear."""
    student = config.student
    seconds = student.windows_seconds or (teacher.context_seconds,)
    longest, owner = teacher.context_seconds, "the teacher's"
    if origin.context_seconds < longest:
        longest, owner = origin.context_seconds, "student.path's"
    check_windows(seconds, longest, "student.windows_seconds", owner)
    if seconds[-1] % 1:
        # preprocessor_config.json stores the length of the window as an integer.
        raise InputError(
            f"student.windows_seconds={seconds} must end with whole seconds: every program that "
            "loads the student reads the longest window as an integer"
        )
    return Windows(tuple(map(float, seconds)), student.margin_seconds)


def is_of_teacher(config: Config) -> bool:
    """Whether the student is initialised from the teacher itself, however the path is spelt."""
    path = config.student.path
    if path is None:
        return True
    return path_of(path).resolve() == path_of(config.teacher.path).resolve()


def load_pair(config: Config) -> LoadedPair:
    """Loads the teacher and initialises the student.

    Raises:
        InputError: a model cannot be loaded, or the student cannot be made of it.
    """
    teacher = load_model(resolve_model(config.teacher.path))
    origin = teacher
    if config.student.path is not None and not is_of_teacher(config):
        origin = load_model(resolve_model(config.student.path))
    student = student_spec(config, teacher.dims, origin.dims)
    params = student_params(
        origin.params, student.dims, student.encoder_layers, student.decoder_layers
    )
    return LoadedPair(teacher, student, params, origin.folder)


def place_params(params: dict[str, Any], dtype: str, mesh: Mesh) -> dict[str, Any]:
    """Puts parameters that are on the host on the mesh, in their compute dtype."""
    return jax.tree.map(
        lambda x, sharding: put_array(np.asarray(x, jnp.dtype(dtype)), sharding),
        params,
        tree_shardings(params, RULES, mesh),
    )


def own_params(
    student_params: dict[str, Any], frozen: tuple[str, ...], shares_encoder: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The student's trained and frozen parameters, without an encoder that is the teacher's.

    Raises:
        InputError: a frozen path names no parameter, or nothing is left to train.
    """
    params, frozen_params = split_params(student_params, frozen, ALWAYS_FROZEN)
    if shares_encoder:
        frozen_params.pop("encoder")
    return params, frozen_params
