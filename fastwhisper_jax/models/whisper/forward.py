"""Whisper as pure functions of parameters and arrays: `encode`, `decode`, `logits`.

Parameters are a nested dict `{"encoder": ..., "decoder": ...}`. The leaves under `layers` are
stacked on a leading layer axis, so that one compiled layer serves all depths. Each function reads
only the part of the parameters that it names.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fastwhisper_jax.models.layers import HIDDEN
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.whisper.decoder import TextDecoder
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.encoder import AudioEncoder

Params = Mapping[str, Any]


class StackStates(NamedTuple):
    """The states of an encoder or a decoder, in the compute dtype. A decoder has T in place of S.

    Attributes:
        output: after the last LayerNorm.
        layers: the residual stream after each layer; None where nobody asked for it.
    """

    output: Float[Array, "B S D"]
    layers: Float[Array, "layers B S D"] | None = None


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
    return run_encoder(params, dims, log_mel, options, dropout_key).output


def run_encoder(
    params: Params,
    dims: ModelDimensions,
    log_mel: Float[Array, "B L M"],
    options: ModelOptions,
    dropout_key: jax.Array | None = None,
    *,
    keeps_layers: bool = False,
) -> StackStates:
    """Returns what `encode` does, and with `keeps_layers` the states after each layer."""
    encoder = AudioEncoder(dims, options)

    def run(log_mel: jax.Array) -> StackStates:
        return _run(encoder, params["encoder"], log_mel, key=dropout_key, keeps_layers=keeps_layers)

    if not options.encodes_by_row or dropout_key is not None:
        return run(log_mel)

    def run_row(row: jax.Array) -> StackStates:
        output, layers = run(row[None])
        return StackStates(output[0], None if layers is None else layers[:, 0])

    output, layers = jax.lax.map(run_row, log_mel)
    return StackStates(output, None if layers is None else jnp.swapaxes(layers, 0, 1))


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
    return run_decoder(params, dims, tokens, encoder_states, options, dropout_key).output


def run_decoder(
    params: Params,
    dims: ModelDimensions,
    tokens: Int[Array, "B T"],
    encoder_states: Float[Array, "B S D"],
    options: ModelOptions,
    dropout_key: jax.Array | None = None,
    *,
    keeps_layers: bool = False,
) -> StackStates:
    """Returns what `decode` does, and with `keeps_layers` the states after each layer."""
    decoder = TextDecoder(dims, options)
    arrays = tokens, encoder_states
    return _run(decoder, params["decoder"], *arrays, key=dropout_key, keeps_layers=keeps_layers)


def _run(
    module: nn.Module,
    params: Params,
    *arrays: jax.Array,
    key: jax.Array | None,
    keeps_layers: bool,
) -> StackStates:
    rngs = None if key is None else {"dropout": key}
    mutable = [HIDDEN] if keeps_layers else []
    output, kept = module.apply({"params": params}, *arrays, rngs=rngs, mutable=mutable)
    return StackStates(output, kept[HIDDEN]["layers"]["states"][0] if keeps_layers else None)


def logits(params: Params, states: Float[Array, "*B T D"]) -> Float[Array, "*B T V"]:
    """Projects decoder states (..., T, D) on the tied token embedding to (..., T, V), float32."""
    embedding = params["decoder"]["embed_tokens"].astype(states.dtype)
    return jnp.einsum("...TD,VD->...TV", states, embedding, preferred_element_type=jnp.float32)
