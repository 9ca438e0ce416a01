"""Static options of a forward pass."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

# What the backward pass computes again instead of keeping it from the forward pass.
Rematerialise = Literal["nothing", "all_but_projections", "everything"]


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """How to compute a forward pass. No option changes the shapes of the parameters.

    Attributes:
        dtype: compute dtype of matmuls and activations, "float32" or "bfloat16". LayerNorm
            statistics, attention softmax and logits are always float32.
        rematerialise: what the backward pass recomputes in each layer instead of keeping it:
            "nothing", "all_but_projections" (attention, norms and GELU), or "everything".
        dropout: rate of residual dropout. It is applied only where a key is given, in training.
        attention: how attention without a mask is computed. "xla" uses one matmul for all heads.
            "per_head" computes one row and head at a time, which is faster on a single CPU because
            the scores of one head fit in its cache. "pallas" is a TPU kernel whose scores never
            leave the chip's own memory.
        encodes_by_row: encode the rows of a batch one after another. This is faster on a single
            CPU, whose cache holds the activations of one row. It is slower for an encoder that is
            trained, because each row would then add to the gradient of all weights.
        sums_in_blocks: compute long float32 sums with `layers.sum_in_blocks`. The encoder always
            turns it on for itself.
        activations: the sharding of activations (B, ., D). Every layer applies it; otherwise the
            compiler may shard activations like the weights and move them back and forth.
        parameter_axis: the mesh axis over which parameters are sharded in storage; a layer gathers
            them before it uses them. None where there is no such axis.
        tensor_axis: the mesh axis over which heads and MLP widths are sharded, in storage and in
            computation. None where there is no such axis.
    """

    dtype: str = "float32"
    rematerialise: Rematerialise = "nothing"
    dropout: float = 0.0
    attention: Literal["xla", "per_head", "pallas"] = "xla"
    encodes_by_row: bool = False
    sums_in_blocks: bool = False
    activations: jax.sharding.NamedSharding | None = None
    parameter_axis: str | None = None
    tensor_axis: str | None = None

    @property
    def compute_dtype(self) -> jnp.dtype:
        return jnp.dtype(self.dtype)
