"""How a student is initialised from its teacher: its layers, its sizes and its parameters."""

import dataclasses
from typing import Any

import jax
import numpy as np

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.forward import Params


def kept_layers(
    choice: int | tuple[int, ...] | None, teacher_layers: int, name: str
) -> tuple[int, ...]:
    """Returns the indices of the teacher's layers that the student copies.

    Args:
        choice: None for all layers, a count, or explicit ascending indices. A count spreads the
            layers as far apart as possible and always keeps the last one (Distil-Whisper's rule:
            2 of 6 are 0 and 5).
        teacher_layers: the number of the teacher's layers.
        name: the name of the choice in an error.

    Raises:
        InputError: the count or an index is out of range, or the indices do not ascend.

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
        return spread_layers(choice, teacher_layers)
    ascending = all(a < b for a, b in zip(choice, choice[1:], strict=False))
    if not choice or not ascending or choice[0] < 0 or choice[-1] >= teacher_layers:
        raise InputError(
            f"{name}={choice}: layer indices must ascend, from 0 to at most {teacher_layers - 1}"
        )
    return tuple(choice)


def spread_layers(count: int, layers: int) -> tuple[int, ...]:
    """Returns `count` of a model's layers as far apart as possible, always with the last one."""
    spread = np.linspace(0, layers - 1, count, dtype=int)
    spread[-1] = layers - 1
    return tuple(int(i) for i in spread)


def student_dimensions(
    origin: ModelDimensions,
    encoder_layers: tuple[int, ...],
    decoder_layers: tuple[int, ...],
    positions: int,
) -> ModelDimensions:
    """Returns the sizes of a student that keeps some layers of a model.

    Args:
        origin: the model whose layers the student keeps, the teacher or another.
        encoder_layers, decoder_layers: the layers of `origin` that are kept.
        positions: S of the student's longest window.
    """
    return dataclasses.replace(
        origin,
        n_audio_ctx=positions,
        n_audio_layer=len(encoder_layers),
        n_text_layer=len(decoder_layers),
    )


def student_params(
    teacher_params: Params,
    dims: ModelDimensions,
    encoder_layers: tuple[int, ...],
    decoder_layers: tuple[int, ...],
) -> dict[str, Any]:
    """Returns the student's initial parameters: those of the teacher at the kept layers.

    Args:
        teacher_params: NumPy arrays on the host.
        dims: the sizes of the student.
        encoder_layers, decoder_layers: the layers that are kept, ascending.

    Returns:
        Nested dict of NumPy float32 arrays. Do not modify them: a float32 array of which all
        layers are kept shares its memory with the teacher.
    """

    def keep(stack: Params, layers: tuple[int, ...]) -> dict[str, Any]:
        def select(x: Any) -> Any:
            return x if len(layers) == len(x) else x[np.array(layers)]

        kept = {**stack, "layers": jax.tree.map(select, stack["layers"])}
        return jax.tree.map(lambda x: np.asarray(x, np.float32), kept)

    encoder = keep(teacher_params["encoder"], encoder_layers)
    encoder["positions"] = encoder["positions"][: dims.n_audio_ctx]
    return {"encoder": encoder, "decoder": keep(teacher_params["decoder"], decoder_layers)}
