"""The decoder on a few tokens at a time, with cached keys and values.

The layers are unrolled. A scan over stacked weights would copy the weights of each layer for every
token. `unstack_layers` unstacks them once, outside the loop over tokens.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fastwhisper_jax.models.layers import Norm
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.partition import all_gather
from fastwhisper_jax.models.whisper.decoder import DecoderLayer
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.forward import Params


class LayerCache(NamedTuple):
    """Keys and values of one layer: those of the tokens, and in `cross_*` those of the audio."""

    keys: Float[Array, "B N K H"]
    values: Float[Array, "B N K H"]
    cross_keys: Float[Array, "B N S H"]
    cross_values: Float[Array, "B N S H"]


class Cache(NamedTuple):
    """The state of cached decoding.

    Attributes:
        position: the number of tokens in the cache, int32 scalar.
        layers: the cache of every layer.
    """

    position: Int[Array, ""]
    layers: tuple[LayerCache, ...]


def _layer(dims: ModelDimensions, options: ModelOptions) -> DecoderLayer:
    # `unstack_layers` has gathered the weights, so none is sharded over the tensor axis.
    options = dataclasses.replace(options, tensor_axis=None)
    return DecoderLayer(dims.n_state, dims.n_text_head, dims.n_text_mlp, options)


def unstack_layers(params: Params, dims: ModelDimensions, options: ModelOptions) -> dict[str, Any]:
    """Returns the decoder's parameters in the compute dtype, `layers` as a tuple of one tree each.

    On a mesh every device holds all of them. Sharded weights would be gathered again for every
    token of the loop. A decoder that was unstacked before is returned as it is.
    """
    if isinstance(params["decoder"]["layers"], tuple):
        return dict(params["decoder"])
    decoder = jax.tree.map(
        lambda x: all_gather(x.astype(options.compute_dtype), options), dict(params["decoder"])
    )
    stacked = decoder["layers"]
    layers = tuple(jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(dims.n_text_layer))
    return decoder | {"layers": layers}


def start(
    decoder: dict[str, Any],
    dims: ModelDimensions,
    encoder_states: Float[Array, "B S D"],
    options: ModelOptions,
    max_length: int,
) -> Cache:
    """Returns a cache without tokens, with the keys and values of the audio.

    Args:
        decoder: the result of `unstack_layers`.
        dims: sizes of the model.
        encoder_states: (B, S, D), the output of `encode`.
        options: how to compute.
        max_length: K, the most tokens that the cache will hold: the prompt, generated tokens and
            every alternative.
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
    tokens: Int[Array, "B T"],
    options: ModelOptions,
    positions: Int[Array, "B T"] | None = None,
    mask: Bool[Array, "B 1 T K"] | None = None,
) -> tuple[Float[Array, "B T D"], Cache]:
    """Runs the decoder on the next tokens, and adds them to the cache.

    By default the tokens follow those in the cache. With `positions` and `mask` they may instead
    be alternatives to each other, or continue any earlier token. Several texts about one audio then
    share its keys and values, and those of their common tokens. To choose among them, nothing in
    the cache has to be moved.

    Args:
        decoder: the result of `unstack_layers`.
        dims: sizes of the model.
        cache: the result of `start` or of the previous call.
        tokens: (B, T) int32.
        options: how to compute.
        positions: (B, T) int32, the position of each token in its own text.
        mask: (B, 1, T, K) bool, True at the tokens of the cache that each token attends to, itself
            included. The new tokens are at cache.position and after.

    Returns:
        The states (B, T, D), and the cache with the T tokens.
    """
    indices = cache.position + jnp.arange(tokens.shape[1])
    if positions is None:
        positions = indices[None]
    if mask is None:
        mask = jnp.arange(cache.layers[0].keys.shape[2])[None, :] <= indices[:, None]
    x = decoder["embed_tokens"][tokens] + decoder["positions"][positions]
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
