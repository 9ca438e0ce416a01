"""Which language a window is in."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions


def detect_language(
    params: whisper.Params,
    dims: ModelDimensions,
    options: ModelOptions,
    encoder_states: jax.Array,
    start_of_transcript: int,
    language_tokens: Sequence[int],
) -> jax.Array:
    """The likeliest language of each window: one decoder step, argmax over the language tokens.

    Args:
        params: parameters; only `params["decoder"]` is read.
        dims: sizes of the model.
        options: how to compute.
        encoder_states: (B, S, D), the output of `encode`.
        start_of_transcript: the only token that the decoder is given.
        language_tokens: one token a language.

    Returns:
        (B,) int32 index into `language_tokens`.

    Source: openai/whisper `decoding.py`, `detect_language`.
    """
    tokens = jnp.full((encoder_states.shape[0], 1), start_of_transcript, jnp.int32)
    states = whisper.decode(params, dims, tokens, encoder_states, options)
    logits = whisper.logits(params, states)[:, 0]
    return jnp.argmax(logits[:, jnp.asarray(language_tokens)], axis=1).astype(jnp.int32)
