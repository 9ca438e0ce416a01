"""Multi-head attention and the three ways to compute it: "xla", "per_head" and "pallas"."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from fastwhisper_jax.models.layers import Projection, sum_in_blocks
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.pallas_attention import can_use_pallas, pallas_attention
from fastwhisper_jax.models.partition import head_sharding


class Attention(nn.Module):
    """Multi-head attention. Keys and values are projected by a call of their own, for caching.

    Whisper's key projection has no bias.
    """

    width: int
    heads: int
    options: ModelOptions

    def setup(self) -> None:
        self.query = Projection(self.width, self.options)
        self.key = Projection(self.width, self.options, use_bias=False)
        self.value = Projection(self.width, self.options)
        self.out = Projection(self.width, self.options, is_row_parallel=True)

    def keys_values(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Projects x (B, K, D) to keys and values, each (B, N, K, H).

        The heads come before the positions, in the order that the two matmuls need. With
        (B, K, N, H), each decoded token would transpose the keys and values of the whole audio.
        """
        return split_heads(self.key(x), self.heads), split_heads(self.value(x), self.heads)

    def __call__(
        self, x: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array | None = None
    ) -> jax.Array:
        """Attends from x (B, T, D) to keys and values (B, N, K, H).

        A query attends to a key where mask, (T, K) or (B, 1, T, K), is True.
        """
        query = self.query(x) * (self.width // self.heads) ** -0.5
        sharding, in_blocks = head_sharding(self.options), self.options.sums_in_blocks
        # The other two ways take no mask and gain nothing for a single query.
        method = self.options.attention if mask is None and x.shape[1] > 1 else "xla"
        if method == "pallas" and can_use_pallas(self.width, self.heads, sharding):
            return self.out(
                pallas_attention(query, join_heads(keys), join_heads(values), self.heads, sharding)
            )
        query = split_heads(query, self.heads)
        if method == "per_head":
            attended = _attend_per_head(query, keys, values, in_blocks)
        else:
            attended = attend(query, keys, values, mask, in_blocks)
        return self.out(join_heads(attended))


def split_heads(x: jax.Array, heads: int) -> jax.Array:
    """Splits the width of x (B, K, D) into heads (B, N, K, H)."""
    return x.reshape(*x.shape[:-1], heads, -1).transpose(0, 2, 1, 3)


def join_heads(x: jax.Array) -> jax.Array:
    """Joins heads (B, N, K, H) to one width (B, K, D)."""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


def attend(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array | None = None,
    in_blocks: bool = False,
) -> jax.Array:
    """Returns softmax(query keys^T) values, for query (..., T, H) and keys, values (..., K, H)."""
    scores = jnp.einsum("...TH,...KH->...TK", query, keys, preferred_element_type=jnp.float32)
    if mask is not None:
        mask = mask.reshape((1,) * (scores.ndim - mask.ndim) + mask.shape)
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    attention = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    return (sum_in_blocks if in_blocks else jnp.matmul)(attention, values)


def _attend_per_head(
    query: jax.Array, keys: jax.Array, values: jax.Array, in_blocks: bool
) -> jax.Array:
    """Computes `attend` one row and head at a time, so that a head's scores (T, K) stay in cache.

    The backward pass recomputes the scores, which is faster than keeping them and needs less
    memory.
    """
    heads = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (query, keys, values))
    attend_once = jax.checkpoint(functools.partial(attend, in_blocks=in_blocks))
    return jax.lax.map(lambda head: attend_once(*head), heads).reshape(query.shape)
