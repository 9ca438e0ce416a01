"""The sizes of a Whisper model and how to compute with it: all that is static in a forward pass."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

SAMPLE_RATE_HZ = 16_000
FRAMES_PER_SECOND = 100
FRAMES_PER_POSITION = 2

# What of a layer is computed again in the backward pass instead of being kept from the forward one.
Rematerialise = Literal["nothing", "all_but_projections", "everything"]


@dataclasses.dataclass(frozen=True)
class ModelDimensions:
    """Sizes of a Whisper model. Hashable, so that it can be a static argument of `jax.jit`.

    The names are those of openai/whisper's `ModelDimensions`; the two stacks share one width.

    Attributes:
        n_mels: M, mel bins of the input (80, or 128 since large-v3).
        n_audio_ctx: S, encoder positions, 50 a second (1500 for 30 s).
        n_audio_head: N of the encoder.
        n_audio_layer: encoder layers.
        n_audio_mlp: F of the encoder.
        n_vocab: V (51864 English only, 51865 multilingual, 51866 since large-v3).
        n_text_ctx: decoder positions (448).
        n_text_head: N of the decoder.
        n_text_layer: decoder layers.
        n_text_mlp: F of the decoder.
        n_state: D, the width of both stacks.
    """

    n_mels: int
    n_audio_ctx: int
    n_audio_head: int
    n_audio_layer: int
    n_audio_mlp: int
    n_vocab: int
    n_text_ctx: int
    n_text_head: int
    n_text_layer: int
    n_text_mlp: int
    n_state: int

    @property
    def n_frames(self) -> int:
        """L, mel frames of a full window."""
        return self.n_audio_ctx * FRAMES_PER_POSITION

    @property
    def context_seconds(self) -> float:
        """Length of a full window in seconds."""
        return self.n_frames / FRAMES_PER_SECOND

    @property
    def n_samples(self) -> int:
        """A, audio samples of a full window at 16 kHz."""
        return self.n_frames * SAMPLE_RATE_HZ // FRAMES_PER_SECOND


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """How to compute a forward pass; no option changes the parameters' shapes.

    Attributes:
        dtype: compute dtype of matmuls and activations, "float32" or "bfloat16". LayerNorm
            statistics, attention softmax and logits are float32 in any case.
        rematerialise: what the backward pass recomputes of each layer instead of keeping it:
            "nothing", "all_but_projections" (attention, norms and GELU), or "everything".
        dropout: rate of residual dropout, applied where a key is given (training only).
        attention: "together", all heads in one matmul; "by_head", one row and head at a time: for
            one CPU, where the scores of all heads do not fit the cache (the encoder's attention is
            2.6 times as fast); or "fused", a TPU kernel for attention without a mask, whose scores
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
    attention: Literal["together", "by_head", "fused"] = "together"
    encodes_by_row: bool = False
    sums_in_blocks: bool = False
    activations: jax.sharding.NamedSharding | None = None
    parameter_axis: str | None = None
    tensor_axis: str | None = None

    @property
    def compute_dtype(self) -> jnp.dtype:
        return jnp.dtype(self.dtype)
