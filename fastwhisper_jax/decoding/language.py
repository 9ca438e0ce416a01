"""Language detection: which language a window is in."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from fastwhisper_jax.decoding.prefill import WhisperModel
from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.whisper import cached_decoder


def detect_language(
    model: WhisperModel,
    encoder_states: jax.Array,
    start_of_transcript: int,
    language_tokens: Sequence[int],
) -> jax.Array:
    """Finds the likeliest language of each window, from one step of the decoder.

    Args:
        model: the model.
        encoder_states: (B, S, D), the output of `encode`.
        start_of_transcript: the only token that the decoder is given.
        language_tokens: one token a language.

    Returns:
        (B,) int32 index into `language_tokens`.

    Source: openai/whisper `decoding.py`, `detect_language`.
    """
    tokens = jnp.full((encoder_states.shape[0], 1), start_of_transcript, jnp.int32)
    weights = cached_decoder.unstack_layers(model.params, model.dims, model.options)
    cache = cached_decoder.start(weights, model.dims, encoder_states, model.options, 1)
    states, _ = cached_decoder.extend(weights, model.dims, cache, tokens, model.options)
    logits = whisper.logits({"decoder": weights}, states)[:, 0]
    return jnp.argmax(logits[:, jnp.asarray(language_tokens)], axis=1).astype(jnp.int32)
