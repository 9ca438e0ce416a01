"""The cost of transcribing with a model: encoding a window, and decoding one cached token."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from fastwhisper_jax.cost.chips import Chip
from fastwhisper_jax.cost.measure import measure
from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.whisper import cached_decoder
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions


@dataclasses.dataclass(frozen=True)
class DecodingCost:
    """Roofline seconds of a batch of windows on one chip.

    Attributes:
        encode_seconds: time of the encoder and of the keys and values for cross-attention.
        token_seconds: time to decode one more token of each window.
    """

    encode_seconds: float
    token_seconds: float

    def window_seconds(self, tokens: int) -> float:
        """The time of a batch of windows with `tokens` tokens each."""
        return self.encode_seconds + tokens * self.token_seconds


def measure_decoding(
    params: Any,
    dims: ModelDimensions,
    options: ModelOptions,
    rows: int,
    tokens: int,
    placement: jax.sharding.Sharding,
    chip: Chip,
) -> DecodingCost | None:
    """Compiles both programs for one chip; returns None if the model does not fit it.

    Args:
        params: shapes of the whole model's parameters.
        dims: the model's sizes.
        options: how the model computes.
        rows: B, windows at a time.
        tokens: K, the longest text.
        placement: the sharding of every array: one device.
        chip: the chip that this device is.
    """

    def on_chip(tree: Any) -> Any:
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placement), tree
        )

    def start(decoder: Any, encoder: Any, log_mel: jax.Array) -> cached_decoder.Cache:
        encoder_states = whisper.encode({"encoder": encoder}, dims, log_mel, options)
        return cached_decoder.start(decoder, dims, encoder_states, options, tokens)

    def token(decoder: Any, cache: cached_decoder.Cache, ids: jax.Array) -> Any:
        states, cache = cached_decoder.extend(decoder, dims, cache, ids, options)
        return whisper.logits({"decoder": decoder}, states).argmax(axis=-1), cache

    params = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, options.compute_dtype), dict(params)
    )
    decoder = on_chip(
        jax.eval_shape(lambda p: cached_decoder.unstack_layers(p, dims, options), params)
    )
    encoder = on_chip(params["encoder"])
    log_mel = on_chip(jax.ShapeDtypeStruct((rows, dims.n_frames, dims.n_mels), jnp.float32))
    ids = on_chip(jax.ShapeDtypeStruct((rows, 1), jnp.int32))
    cache = on_chip(jax.eval_shape(start, decoder, encoder, log_mel))
    encoded = measure(jax.jit(start), (decoder, encoder, log_mel), chip)
    decoded = measure(jax.jit(token, donate_argnums=1), (decoder, cache, ids), chip)
    if encoded is None or decoded is None:
        return None
    return DecodingCost(encoded.roofline.seconds, decoded.roofline.seconds)
