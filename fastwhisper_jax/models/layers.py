"""Attention, MLP and the two residual blocks of Whisper.

Dimension letters, here and in every einsum of the project:
    B batch              A audio samples (16 kHz)   L mel frames (100 Hz)   M mel bins
    S encoder positions  T target tokens            D width                 N heads
    H head width         F MLP width                V vocabulary            K attended positions
    G beams
"""

import functools
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from fastwhisper_jax.models.dimensions import ModelOptions
from fastwhisper_jax.models.fused_attention import can_fuse, fused_attention
from fastwhisper_jax.models.placement import by_heads, gathered, placed

EMBEDDING_STDDEV = 0.02
PROJECTED = "projected"  # by which rematerialisation knows what a projection made


class Norm(nn.Module):
    """LayerNorm over D with epsilon 1e-5: statistics in float32, result in the compute dtype."""

    options: ModelOptions

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        shape = (1,) * (x.ndim - 1) + scale.shape
        x = x.astype(jnp.float32)
        # Two passes over x: the one-pass variance E[x^2] - E[x]^2 loses digits where |mean| >> std.
        x = x - x.mean(axis=-1, keepdims=True)
        variance = jnp.square(x).mean(axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(variance + 1e-5) * scale.reshape(shape) + bias.reshape(shape)
        return x.astype(self.options.compute_dtype)


FLOAT32_BLOCK = 256


@jax.custom_vjp
def sum_in_blocks(left: jax.Array, right: jax.Array) -> jax.Array:
    """left (..., T, K) @ right (..., K, F), in float32 summed over blocks of K.

    The residual stream of Whisper's encoder has outliers of several hundred, where its output's
    error is largest. What makes it is, first, attention's sum over 1500 positions, then the MLP's
    widening product: with both in blocks whisper-base's encoder is 1.3e-6 from float64 on average,
    with neither 2.4e-6 (PyTorch 1.3e-6). The other projections bring little (1.15e-6) for a tenth
    of their time, the MLP's second product, the longest sum of all, nothing. Narrower dtypes are
    accumulated wider than they are by the hardware. The gradient is that of the plain product:
    through the blocks, each would be padded to the whole and added.
    """
    if left.dtype != jnp.float32:
        return left @ right
    starts = range(0, left.shape[-1], FLOAT32_BLOCK)
    parts = (
        left[..., i : i + FLOAT32_BLOCK] @ right[..., i : i + FLOAT32_BLOCK, :] for i in starts
    )
    return functools.reduce(jnp.add, parts)


def _sum_in_blocks_forward(
    left: jax.Array, right: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return sum_in_blocks(left, right), (left, right)


def _sum_in_blocks_backward(
    operands: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return cast(tuple[jax.Array, jax.Array], jax.vjp(jnp.matmul, *operands)[1](cotangent))


sum_in_blocks.defvjp(_sum_in_blocks_forward, _sum_in_blocks_backward)


class Projection(nn.Module):
    """x @ kernel + bias, in the compute dtype.

    On a tensor axis it is column parallel, each device making some of the features; or, with
    `is_row_parallel`, each device takes some of the inputs, and the results are added up.
    """

    features: int
    options: ModelOptions
    use_bias: bool = True
    is_row_parallel: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dtype = self.options.compute_dtype
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.features))
        tensor_dim = 0 if self.is_row_parallel else 1
        kernel = gathered(kernel.astype(dtype), self.options, tensor_dim)
        in_blocks = self.options.sums_in_blocks and self.features > x.shape[-1]
        x = (sum_in_blocks if in_blocks else jnp.matmul)(x.astype(dtype), kernel)
        x = checkpoint_name(x, PROJECTED)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            x = x + bias.astype(dtype).reshape((1,) * (x.ndim - 1) + bias.shape)
        return x


class Attention(nn.Module):
    """Multi-head attention; keys and values are projected apart, so that they can be cached.

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

    def _split(self, x: jax.Array) -> jax.Array:
        x = x.reshape(*x.shape[:-1], self.heads, self.width // self.heads)
        return x.transpose(0, 2, 1, 3)

    def keys_values(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Projects x (B, K, D) to keys and values, each (B, N, K, H).

        The heads come first, as the two matmuls want them: from (B, K, N, H) every decoded token
        would transpose the keys and values of the whole audio again.
        """
        return self._split(self.key(x)), self._split(self.value(x))

    def __call__(
        self, x: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array | None = None
    ) -> jax.Array:
        """Attends from x (B, T, D) to keys, values (B, N, K, H).

        Where mask, (T, K) or (B, 1, T, K), is False, it does not.
        """
        query = self.query(x) * (self.width // self.heads) ** -0.5
        many = mask is None and x.shape[1] > 1
        placement, in_blocks = by_heads(self.options), self.options.sums_in_blocks
        if (
            many
            and self.options.attention == "fused"
            and can_fuse(self.width, self.heads, placement)
        ):
            attended = fused_attention(query, _join(keys), _join(values), self.heads, placement)
        elif many and self.options.attention == "by_head":
            attended = _join(_attend_by_head(self._split(query), keys, values, in_blocks))
        else:
            attended = _join(attend(self._split(query), keys, values, mask, in_blocks))
        return self.out(attended)


def rematerialised(layer: Any, options: ModelOptions) -> Any:
    """A layer's class, of which the backward pass recomputes what the options say."""
    if options.rematerialise == "nothing":
        return layer
    keeps_projections = jax.checkpoint_policies.save_only_these_names(PROJECTED)
    policy = keeps_projections if options.rematerialise == "all_but_projections" else None
    return nn.remat(layer, prevent_cse=False, policy=policy)


def _join(heads: jax.Array) -> jax.Array:
    """Heads (B, N, K, H) side by side again: (B, K, D)."""
    return heads.transpose(0, 2, 1, 3).reshape(heads.shape[0], heads.shape[2], -1)


def attend(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array | None = None,
    in_blocks: bool = False,
) -> jax.Array:
    """softmax(query keys^T) values for query (..., T, H) and keys, values (..., K, H)."""
    scores = jnp.einsum("...TH,...KH->...TK", query, keys, preferred_element_type=jnp.float32)
    if mask is not None:
        mask = mask.reshape((1,) * (scores.ndim - mask.ndim) + mask.shape)
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    attention = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    return (sum_in_blocks if in_blocks else jnp.matmul)(attention, values)


def _attend_by_head(
    query: jax.Array, keys: jax.Array, values: jax.Array, in_blocks: bool
) -> jax.Array:
    """`attend`, one row and head at a time, so that a head's scores (T, K) stay in the cache.

    The backward pass makes them again: dearer to keep than to recompute (whisper-base, batch 8,
    encoder trained: 5.4 GiB of temporaries instead of 12.8, and a fifth less processor time).
    """
    heads = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (query, keys, values))
    attend_once = jax.checkpoint(functools.partial(attend, in_blocks=in_blocks))
    return jax.lax.map(lambda head: attend_once(*head), heads).reshape(query.shape)


@jax.checkpoint
def gelu(x: jax.Array) -> jax.Array:
    """The exact (erf) GELU; its backward pass keeps x alone, for one more erf is the cheaper."""
    return jax.nn.gelu(x, approximate=False)


class MLP(nn.Module):
    """fc2(gelu(fc1(x))), with the exact (erf) GELU."""

    width: int
    hidden: int
    options: ModelOptions

    def setup(self) -> None:
        self.fc1 = Projection(self.hidden, self.options)
        self.fc2 = Projection(self.width, self.options, is_row_parallel=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(gelu(self.fc1(x)))


class EncoderLayer(nn.Module):
    """A pre-norm residual block of self-attention and MLP."""

    width: int
    heads: int
    mlp_width: int
    options: ModelOptions

    def setup(self) -> None:
        self.attn_norm = Norm(self.options)
        self.attn = Attention(self.width, self.heads, self.options)
        self.mlp_norm = Norm(self.options)
        self.mlp = MLP(self.width, self.mlp_width, self.options)
        self.dropout = nn.Dropout(self.options.dropout)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, None]:
        """Maps x (B, S, D) to (B, S, D); the second result is what `nn.scan` would stack."""
        deterministic = not self.has_rng("dropout")
        x = placed(x, self.options)
        normed = self.attn_norm(x)
        attended = self.attn(normed, *self.attn.keys_values(normed))
        x = x + self.dropout(attended, deterministic=deterministic)
        x = x + self.dropout(self.mlp(self.mlp_norm(x)), deterministic=deterministic)
        return placed(x, self.options), None


class DecoderLayer(nn.Module):
    """A pre-norm residual block of causal self-attention, cross-attention and MLP."""

    width: int
    heads: int
    mlp_width: int
    options: ModelOptions

    def setup(self) -> None:
        self.attn_norm = Norm(self.options)
        self.attn = Attention(self.width, self.heads, self.options)
        self.cross_attn_norm = Norm(self.options)
        self.cross_attn = Attention(self.width, self.heads, self.options)
        self.mlp_norm = Norm(self.options)
        self.mlp = MLP(self.width, self.mlp_width, self.options)
        self.dropout = nn.Dropout(self.options.dropout)

    def __call__(self, x: jax.Array, hidden: jax.Array) -> tuple[jax.Array, None]:
        """Maps all target positions x (B, T, D) at once; hidden (B, S, D) is the encoder's."""
        x = placed(x, self.options)
        normed = self.attn_norm(x)
        keys, values = self.attn.keys_values(normed)
        causal = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
        cross_keys, cross_values = self.cross_attn.keys_values(hidden)
        x = self._residuals(x, normed, keys, values, causal, cross_keys, cross_values)
        return placed(x, self.options), None

    def cross_keys_values(self, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What the cached path keeps of hidden (B, S, D): keys and values (B, N, S, H)."""
        return self.cross_attn.keys_values(hidden)

    def extend(
        self,
        x: jax.Array,
        keys: jax.Array,
        values: jax.Array,
        cross_keys: jax.Array,
        cross_values: jax.Array,
        position: jax.Array,
        mask: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Maps x (B, T, D), which attends by `mask`, (T, K) or (B, 1, T, K).

        Its keys and values are written to keys, values (B, N, K, H) at `position`.
        """
        normed = self.attn_norm(x)
        new_keys, new_values = self.attn.keys_values(normed)
        keys = jax.lax.dynamic_update_slice_in_dim(keys, new_keys, position, axis=2)
        values = jax.lax.dynamic_update_slice_in_dim(values, new_values, position, axis=2)
        x = self._residuals(x, normed, keys, values, mask, cross_keys, cross_values)
        return x, keys, values

    def _residuals(
        self,
        x: jax.Array,
        normed: jax.Array,
        keys: jax.Array,
        values: jax.Array,
        mask: jax.Array,
        cross_keys: jax.Array,
        cross_values: jax.Array,
    ) -> jax.Array:
        deterministic = not self.has_rng("dropout")
        attended = self.attn(normed, keys, values, mask)
        x = x + self.dropout(attended, deterministic=deterministic)
        attended = self.cross_attn(self.cross_attn_norm(x), cross_keys, cross_values)
        x = x + self.dropout(attended, deterministic=deterministic)
        return x + self.dropout(self.mlp(self.mlp_norm(x)), deterministic=deterministic)
