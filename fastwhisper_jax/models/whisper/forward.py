"""Whisper as pure functions of parameters and arrays: `encode`, `decode`, `logits`.

Parameters are a nested dict `{"encoder": ..., "decoder": ...}`. The leaves under `layers` are
stacked on a leading layer axis, so that one compiled layer serves all depths. Each function reads
only the part of the parameters that it names.
"""

from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.whisper.decoder import TextDecoder
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.encoder import AudioEncoder

Params = Mapping[str, Any]


def init_params(dims: ModelDimensions, key: jax.Array) -> dict[str, Any]:
    """Returns random float32 parameters of a Whisper of the given sizes."""
    options = ModelOptions()
    encoder_key, decoder_key = jax.random.split(key)
    log_mel = jnp.zeros((1, dims.n_frames, dims.n_mels))
    tokens = jnp.zeros((1, 1), jnp.int32)
    encoder_states = jnp.zeros((1, dims.n_audio_ctx, dims.n_state))
    return {
        "encoder": AudioEncoder(dims, options).init(encoder_key, log_mel)["params"],
        "decoder": TextDecoder(dims, options).init(decoder_key, tokens, encoder_states)["params"],
    }


def encode(
    params: Params,
    dims: ModelDimensions,
    log_mel: Float[Array, "B L M"],
    options: ModelOptions,
    dropout_key: jax.Array | None = None,
) -> Float[Array, "B S D"]:
    """Returns the encoder states of log-mel spectrograms.

    Args:
        params: parameters; only `params["encoder"]` is read.
        dims: sizes of the model.
        log_mel: (B, L, M) float32, a window of L = 2 S frames, at most that of the model.
        options: how to compute.
        dropout_key: the key of residual dropout, for training; None for no dropout.

    Returns:
        (B, S, D) in the compute dtype, after the last LayerNorm of the encoder.

    Source: transformers `WhisperEncoder`; openai/whisper `AudioEncoder`.
    """
    rngs = None if dropout_key is None else {"dropout": dropout_key}
    variables = {"params": params["encoder"]}
    encoder = AudioEncoder(dims, options)
    if options.encodes_by_row and dropout_key is None:
        return jax.lax.map(lambda row: encoder.apply(variables, row[None])[0], log_mel)
    encoder_states = encoder.apply(variables, log_mel, rngs=rngs)
    return cast(jax.Array, encoder_states)


def decode(
    params: Params,
    dims: ModelDimensions,
    tokens: Int[Array, "B T"],
    encoder_states: Float[Array, "B S D"],
    options: ModelOptions,
    dropout_key: jax.Array | None = None,
) -> Float[Array, "B T D"]:
    """Returns the decoder states of all target positions at once (teacher forcing).

    Args:
        params: parameters; only `params["decoder"]` is read.
        dims: sizes of the model.
        tokens: (B, T) int32, T <= n_text_ctx.
        encoder_states: (B, S, D), the output of `encode`.
        options: how to compute.
        dropout_key: the key of residual dropout, for training; None for no dropout.

    Returns:
        (B, T, D) in the compute dtype, after the last LayerNorm. `logits` projects them.

    Source: transformers `WhisperDecoder`; openai/whisper `TextDecoder`.
    """
    rngs = None if dropout_key is None else {"dropout": dropout_key}
    variables = {"params": params["decoder"]}
    states = TextDecoder(dims, options).apply(variables, tokens, encoder_states, rngs=rngs)
    return cast(jax.Array, states)


def logits(params: Params, states: Float[Array, "*B T D"]) -> Float[Array, "*B T V"]:
    """Projects decoder states (..., T, D) on the tied token embedding to (..., T, V), float32."""
    embedding = params["decoder"]["embed_tokens"].astype(states.dtype)
    return jnp.einsum("...TD,VD->...TV", states, embedding, preferred_element_type=jnp.float32)
