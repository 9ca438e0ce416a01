"""How to compute a forward pass: all that is static in it but the sizes."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

# What of a layer is computed again in the backward pass instead of being kept from the forward one.
Rematerialise = Literal["nothing", "all_but_projections", "everything"]


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """How to compute a forward pass; no option changes the parameters' shapes.

    Attributes:
        dtype: compute dtype of matmuls and activations, "float32" or "bfloat16". LayerNorm
            statistics, attention softmax and logits are float32 in any case.
        rematerialise: what the backward pass recomputes of each layer instead of keeping it:
            "nothing", "all_but_projections" (attention, norms and GELU), or "everything".
        dropout: rate of residual dropout, applied where a key is given (training only).
        attention: "xla", all heads in one matmul; "per_head", one row and head at a time: for
            one CPU, where the scores of all heads do not fit the cache (the encoder's attention is
            2.6 times as fast); or "pallas", a TPU kernel for attention without a mask, whose scores
            never leave the chip's own memory.
        encodes_by_row: encode one row of a batch after the other: for one CPU, whose cache holds a
            row's activations (a tenth faster). Not for an encoder that is trained: each row would
            add up the gradient of all weights.
        sums_in_blocks: long float32 sums as `layers.sum_in_blocks`; the encoder turns it on for
            itself.
        activations: where activations (B, ., D) lie on a mesh, held at every layer: left to itself
            the compiler may divide them like the weights, and move them back and forth.
        parameter_axis: the mesh axis over which parameters are stored divided, and gathered for
            use; None where they are not.
        tensor_axis: the mesh axis over which heads and MLP widths are divided in storage and in
            computation; None where they are not.
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
