"""The shapes and shardings of a recipe's models and batch. Nothing is loaded or computed."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from fastwhisper_jax.audio.windows import window_frames, window_positions
from fastwhisper_jax.config import Config
from fastwhisper_jax.cost.published import PUBLISHED
from fastwhisper_jax.distillation.hidden_states import compared_stacks
from fastwhisper_jax.distillation.pair import PairShapes, student_spec
from fastwhisper_jax.distillation.teacher_cache import cached_parts, runs_teacher_in_steps
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.export.hf_configs import read_model_config
from fastwhisper_jax.export.hf_load import model_folder
from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.sharding_rules import RULES
from fastwhisper_jax.training.sharding import batch_sharding, tree_shardings


def model_dimensions(path: str) -> ModelDimensions:
    """The sizes of the model in a Hugging Face folder, else of a published model of that name.

    Raises:
        InputError: the path is neither of them.
    """
    folder = model_folder(path)
    if folder is None:
        if path in PUBLISHED:
            return PUBLISHED[path]
        raise InputError(
            f"the sizes of {path!r} are not known: it is neither a folder nor one of "
            f"{', '.join(PUBLISHED)}; download it first, and name its folder"
        )
    return read_model_config(folder)[1]


def model_shapes(config: Config, mesh: Mesh) -> tuple[PairShapes, dict[str, Any]]:
    """The shapes of a recipe's teacher and student, and of the teacher's parameters on the mesh.

    Raises:
        InputError: the sizes of a model are not known, or the student cannot be made.
    """
    teacher = model_dimensions(config.teacher.path)
    path = config.student.path
    origin = teacher if path is None else model_dimensions(path)
    student = student_spec(config, teacher, origin)
    teacher_params = with_shardings(param_shapes(teacher, config.teacher.dtype), mesh)
    return PairShapes(teacher, student, param_shapes(student.dims, "float32")), teacher_params


def param_shapes(dims: ModelDimensions, dtype: str) -> dict[str, Any]:
    """The shapes of the parameters of a Whisper with these sizes."""
    shapes = jax.eval_shape(lambda: whisper.init_params(dims, jax.random.key(0)))
    return dict(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.dtype(dtype)), shapes))


def with_shardings(shapes: Any, mesh: Mesh) -> Any:
    """Adds the shardings that training uses to the shapes of parameters."""
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        tree_shardings(shapes, RULES, mesh),
    )


def batch_shapes(
    config: Config,
    models: PairShapes,
    mesh: Mesh,
    rows: int,
    tokens: int,
    runs_teacher: bool,
    window_seconds: float,
) -> dict[str, Any]:
    """The shapes of a global batch, with its rows divided over the mesh.

    Args:
        config: the recipe.
        models: sizes and windows of teacher and student.
        mesh: where the batch is.
        rows: B.
        tokens: T.
        runs_teacher: whether a phase of the run has the teacher.
        window_seconds: the student's window.
    """
    teacher, student = models.teacher_dims, models.student.dims
    cached = cached_parts(config, models, runs_teacher)
    arrays: dict[str, tuple[tuple[int, ...], Any]] = {
        "input_ids": ((rows, tokens), jnp.int32),
        "labels": ((rows, tokens), jnp.int32),
        "label_mask": ((rows, tokens), jnp.float32),
    }
    if cached.encoder_states:
        positions = window_positions(window_seconds)
        arrays["encoder_states"] = (rows, positions, student.n_state), jnp.float16
    else:
        arrays["log_mel"] = (rows, window_frames(window_seconds), student.n_mels), jnp.float32
        hears_more = window_seconds < teacher.context_seconds or config.data.augments_audio
        if runs_teacher_in_steps(config, cached, runs_teacher) and hears_more:
            arrays["teacher_log_mel"] = (rows, teacher.n_frames, teacher.n_mels), jnp.float32
        if "encoder" in compared_stacks(config):
            arrays["speech_frames"] = (rows,), jnp.int32
    if cached.teacher_states:
        arrays["teacher_states"] = (rows, tokens, teacher.n_state), jnp.float32
    sharding = batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
        for name, (shape, dtype) in arrays.items()
    }
