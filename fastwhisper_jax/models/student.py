"""Making a student from its teacher: which layers are copied, how long its context is."""

import dataclasses
from typing import Any

import jax
import numpy as np

from fastwhisper_jax.audio.constants import FRAMES_PER_POSITION, FRAMES_PER_SECOND
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.forward import Params


def kept_layers(
    choice: int | tuple[int, ...] | None, teacher_layers: int, name: str
) -> tuple[int, ...]:
    """The teacher's layers that the student copies, in its own order.

    Args:
        choice: None for all; a count, spread as far apart as possible, always with the last layer
            (Distil-Whisper's rule: 2 of 6 are 0 and 5); or explicit indices, ascending.
        teacher_layers: how many the teacher has.
        name: what to call the choice in an error.

    Raises:
        InputError: the count or an index is out of range, or indices do not ascend.

    Source: Distil-Whisper (arXiv 2311.00430), section 3.1.
    """
    if choice is None:
        return tuple(range(teacher_layers))
    if isinstance(choice, int):
        if not 1 <= choice <= teacher_layers:
            raise InputError(
                f"{name}={choice}, but the teacher has {teacher_layers} layers; "
                f"choose 1 to {teacher_layers}"
            )
        spread = np.linspace(0, teacher_layers - 1, choice, dtype=int)
        spread[-1] = teacher_layers - 1
        return tuple(int(i) for i in spread)
    ascending = all(a < b for a, b in zip(choice, choice[1:], strict=False))
    if not choice or not ascending or choice[0] < 0 or choice[-1] >= teacher_layers:
        raise InputError(
            f"{name}={choice}: layer indices must ascend and lie in 0 to {teacher_layers - 1}"
        )
    return tuple(choice)


def student_dimensions(
    teacher: ModelDimensions,
    origin: ModelDimensions,
    encoder_layers: tuple[int, ...],
    decoder_layers: tuple[int, ...],
    context_seconds: float | None,
) -> ModelDimensions:
    """Sizes of the student that keeps these layers of a model and hears windows of this length.

    Args:
        teacher: it hears the same windows, or what they begin.
        origin: the model that the student is cut from, the teacher or another.
        encoder_layers, decoder_layers: those of `origin` that are kept.
        context_seconds: None for the teacher's own window.

    Raises:
        InputError: the context is longer than the teacher's or the origin's, or no whole number of
            seconds.
    """
    given, longest, whose = f"{context_seconds}", teacher.context_seconds, "the teacher's"
    if context_seconds is None:
        context_seconds = teacher.context_seconds
        given = f"none (the teacher's {context_seconds:g})"
    if origin.context_seconds < longest:
        longest, whose = origin.context_seconds, "student.path's"
    if context_seconds % 1 or not 0 < context_seconds <= longest:
        # preprocessor_config.json holds the length of the window as an integer.
        raise InputError(
            f"student.context_seconds={given} must be whole seconds, at least 1 and at most "
            f"{whose} {longest:g}"
        )
    positions = context_seconds * FRAMES_PER_SECOND / FRAMES_PER_POSITION
    return dataclasses.replace(
        origin,
        n_audio_ctx=int(positions),
        n_audio_layer=len(encoder_layers),
        n_text_layer=len(decoder_layers),
    )


def student_params(
    teacher_params: Params,
    dims: ModelDimensions,
    encoder_layers: tuple[int, ...],
    decoder_layers: tuple[int, ...],
) -> dict[str, Any]:
    """The student's first parameters: what the teacher has at the kept layers.

    Args:
        teacher_params: on the host, NumPy arrays.
        dims: of the student.
        encoder_layers, decoder_layers: those that are kept, ascending.

    Returns:
        Nested dict of NumPy float32 arrays, which nobody must change: whatever is float32 and not
        cut is the teacher's own memory.
    """

    def keep(stack: Params, layers: tuple[int, ...]) -> dict[str, Any]:
        def cut(x: Any) -> Any:
            return x if len(layers) == len(x) else x[np.array(layers)]

        kept = {**stack, "layers": jax.tree.map(cut, stack["layers"])}
        return jax.tree.map(lambda x: np.asarray(x, np.float32), kept)

    encoder = keep(teacher_params["encoder"], encoder_layers)
    encoder["positions"] = encoder["positions"][: dims.n_audio_ctx]
    return {"encoder": encoder, "decoder": keep(teacher_params["decoder"], decoder_layers)}
