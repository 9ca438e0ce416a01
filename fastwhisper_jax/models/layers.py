"""The layers that encoder and decoder are made of: LayerNorm, projection, GELU, MLP.

Dimension letters, here and in every einsum and array annotation of the project:
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

from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.partition import all_gather

EMBEDDING_STDDEV = 0.02
PROJECTED = "projected"  # names the results of projections for rematerialisation
HIDDEN = "hidden"  # the collection of what each layer returns, where a caller asks for it
FLOAT32_BLOCK = 256


class Norm(nn.Module):
    """LayerNorm over D, epsilon 1e-5. Statistics are float32, the result has the compute dtype."""

    options: ModelOptions

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        shape = (1,) * (x.ndim - 1) + scale.shape
        x = x.astype(jnp.float32)
        # Two passes over x: the one-pass variance E[x^2] - E[x]^2 loses digits if |mean| >> std.
        x = x - x.mean(axis=-1, keepdims=True)
        variance = jnp.square(x).mean(axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(variance + 1e-5) * scale.reshape(shape) + bias.reshape(shape)
        return x.astype(self.options.compute_dtype)


@jax.custom_vjp
def sum_in_blocks(left: jax.Array, right: jax.Array) -> jax.Array:
    """Returns left (..., T, K) @ right (..., K, F); float32 is summed over blocks of K.

    The encoder's residual stream has large outliers, where float32 rounding is largest. Most of
    the error comes from the attention sum and fc1; summing both in blocks halves it. Narrower
    dtypes need no blocks, because the hardware accumulates them in float32. The gradient is that
    of the plain product: differentiating the blocks would pad each one to the whole and add them.
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
    """Computes x @ kernel + bias in the compute dtype.

    On a tensor axis it is column parallel: each device computes some of the features. With
    `is_row_parallel` each device multiplies some of the inputs, and the devices sum the results.
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
        kernel = all_gather(kernel.astype(dtype), self.options, tensor_dim)
        in_blocks = self.options.sums_in_blocks and self.features > x.shape[-1]
        x = (sum_in_blocks if in_blocks else jnp.matmul)(x.astype(dtype), kernel)
        x = checkpoint_name(x, PROJECTED)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            x = x + bias.astype(dtype).reshape((1,) * (x.ndim - 1) + bias.shape)
        return x


def stack_of_layers(layer: type[nn.Module], depth: int, options: ModelOptions) -> Any:
    """Returns a module class that applies `depth` layers, one after another.

    Parameters are stacked on a leading layer axis, and so is what layers `sow` into HIDDEN.
    Arguments after the first are the same for all layers. The backward pass recomputes what
    `options.rematerialise` says.
    """
    if options.rematerialise != "nothing":
        keeps_projections = jax.checkpoint_policies.save_only_these_names(PROJECTED)
        policy = keeps_projections if options.rematerialise == "all_but_projections" else None
        layer = nn.remat(layer, prevent_cse=False, policy=policy)
    return nn.scan(
        layer,
        variable_axes={"params": 0, HIDDEN: 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=nn.broadcast,
        length=depth,
    )


@jax.checkpoint
def gelu(x: jax.Array) -> jax.Array:
    """The exact (erf) GELU. Its backward pass keeps only x; recomputing erf is cheaper."""
    return jax.nn.gelu(x, approximate=False)


class MLP(nn.Module):
    """Computes fc2(gelu(fc1(x))), with the exact (erf) GELU."""

    width: int
    mlp_width: int
    options: ModelOptions

    def setup(self) -> None:
        self.fc1 = Projection(self.mlp_width, self.options)
        self.fc2 = Projection(self.width, self.options, is_row_parallel=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(gelu(self.fc1(x)))
