"""Decoding a few tokens at a time with cached keys and values.

Layers are unrolled here: a scan over stacked weights would copy each layer's weights for every
token. Unstack them once, outside the token loop (`unstack_layers`).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastwhisper_jax.models.layers import Norm
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.partition import all_gather
from fastwhisper_jax.models.whisper.decoder import DecoderLayer
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.forward import Params


class LayerCache(NamedTuple):
    """Keys and values of one layer: its own tokens' (B, N, K, H) and the audio's (B, N, S, H)."""

    keys: jax.Array
    values: jax.Array
    cross_keys: jax.Array
    cross_values: jax.Array


class Cache(NamedTuple):
    """The state of decoding: the number of tokens seen (int32 scalar) and every layer's cache."""

    position: jax.Array
    layers: tuple[LayerCache, ...]


def _layer(dims: ModelDimensions, options: ModelOptions) -> DecoderLayer:
    # Whole on every device, as `unstack_layers` leaves it.
    options = dataclasses.replace(options, tensor_axis=None)
    return DecoderLayer(dims.n_state, dims.n_text_head, dims.n_text_mlp, options)


def unstack_layers(params: Params, dims: ModelDimensions, options: ModelOptions) -> dict[str, Any]:
    """The decoder's parameters in the compute dtype, `layers` as a tuple of one tree a layer.

    On a mesh each device holds all of them: what they are for is a loop over tokens, in which a
    divided one would be all_gather, or the states of all devices exchanged, for every token.
    """
    decoder = jax.tree.map(
        lambda x: all_gather(x.astype(options.compute_dtype), options), dict(params["decoder"])
    )
    stacked = decoder["layers"]
    layers = tuple(jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(dims.n_text_layer))
    return decoder | {"layers": layers}


def start(
    decoder: dict[str, Any],
    dims: ModelDimensions,
    encoder_states: jax.Array,
    options: ModelOptions,
    max_length: int,
) -> Cache:
    """An empty cache for `max_length` tokens, with the audio's keys and values projected once.

    Args:
        decoder: the result of `unstack_layers`.
        dims: sizes of the model.
        encoder_states: (B, S, D), the output of `encode`.
        options: how to compute.
        max_length: K, the most tokens (prompt and generated) that will be seen; alternatives
            count each.
    """
    layer = _layer(dims, options)
    dtype = options.compute_dtype
    head_width = dims.n_state // dims.n_text_head
    empty = jnp.zeros((encoder_states.shape[0], dims.n_text_head, max_length, head_width), dtype)
    caches = []
    for params in decoder["layers"]:
        projected: Any = layer.apply(
            {"params": params}, encoder_states.astype(dtype), method=DecoderLayer.cross_keys_values
        )
        caches.append(LayerCache(empty, empty, *projected))
    return Cache(jnp.zeros((), jnp.int32), tuple(caches))


def extend(
    decoder: dict[str, Any],
    dims: ModelDimensions,
    cache: Cache,
    tokens: jax.Array,
    options: ModelOptions,
    places: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> tuple[jax.Array, Cache]:
    """Feeds the next tokens; returns their states and the cache.

    By default the tokens follow what the cache holds. With `places` and `mask` they are
    alternatives to each other instead, or go on from any of those fed before: several texts over
    one audio then share its keys and values and those of what they have in common, and choosing
    among them moves nothing in the cache.

    Args:
        decoder: the result of `unstack_layers`.
        dims: sizes of the model.
        cache: of `start` or of the call before.
        tokens: (B, T) int32.
        options: how to compute.
        places: (B, T) int32, where each token stands in its text.
        mask: (B, 1, T, K) bool, the tokens of the cache that each one attends to, itself included:
            this call's lie at cache.position and after.

    Returns:
        states (B, T, D), and the cache with the T tokens.
    """
    fed = cache.position + jnp.arange(tokens.shape[1])
    positions = decoder["positions"][fed[None] if places is None else places]
    if mask is None:
        mask = jnp.arange(cache.layers[0].keys.shape[2])[None, :] <= fed[:, None]
    x = decoder["embed_tokens"][tokens] + positions
    layer = _layer(dims, options)
    caches = []
    for params, old in zip(decoder["layers"], cache.layers, strict=True):
        extended: Any = layer.apply(
            {"params": params}, x, *old, cache.position, mask, method=DecoderLayer.extend
        )
        x, keys, values = extended
        caches.append(old._replace(keys=keys, values=values))
    states: Any = Norm(options).apply({"params": decoder["norm"]}, x)
    return states, Cache(cache.position + tokens.shape[1], tuple(caches))
