"""The audio encoder: two convolutions over the log-mel spectrogram, then residual blocks."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fastwhisper_jax.models.attention import Attention
from fastwhisper_jax.models.layers import HIDDEN, MLP, Norm, gelu, stack_of_layers
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.partition import all_gather, with_sharding_constraint
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions


def sinusoids(length: int, width: int, max_timescale: float = 10_000.0) -> np.ndarray:
    """Returns sinusoidal positions (length, width), float32.

    Whisper keeps them in its weights, but never trains them.

    Source: openai/whisper, `model.py`, `sinusoids`.
    """
    half = width // 2
    scales = np.exp(-np.log(max_timescale) / (half - 1) * np.arange(half))
    angles = np.arange(length)[:, None] * scales[None, :]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


class Conv(nn.Module):
    """A convolution of width 3 over time, with one frame of padding on either side."""

    features: int
    stride: int
    options: ModelOptions

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dtype = self.options.compute_dtype
        kernel = self.param(
            "kernel", nn.initializers.lecun_normal(), (3, x.shape[-1], self.features)
        )
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x = jax.lax.conv_general_dilated(
            x.astype(dtype),
            all_gather(kernel.astype(dtype), self.options),
            window_strides=(self.stride,),
            padding=[(1, 1)],
            dimension_numbers=("NWC", "WIO", "NWC"),
        )
        return x + bias.astype(dtype)[None, None]


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
        """Maps x (B, S, D) to (B, S, D). `nn.scan` needs the second result."""
        deterministic = not self.has_rng("dropout")
        x = with_sharding_constraint(x, self.options)
        normed = self.attn_norm(x)
        attended = self.attn(normed, *self.attn.keys_values(normed))
        x = x + self.dropout(attended, deterministic=deterministic)
        x = x + self.dropout(self.mlp(self.mlp_norm(x)), deterministic=deterministic)
        x = with_sharding_constraint(x, self.options)
        self.sow(HIDDEN, "states", x)
        return x, None


class AudioEncoder(nn.Module):
    """Maps a log-mel spectrogram (B, L, M) to audio features (B, S, D) with S = L / 2.

    S may be less than the positions that the model has: the first S are used.
    """

    dims: ModelDimensions
    options: ModelOptions

    @nn.compact
    def __call__(self, log_mel: jax.Array) -> jax.Array:
        dims, options = self.dims, dataclasses.replace(self.options, sums_in_blocks=True)
        x = Conv(dims.n_state, 1, options, name="conv1")(log_mel)
        x = gelu(x)
        x = Conv(dims.n_state, 2, options, name="conv2")(x)
        x = gelu(x)
        positions = self.param(
            "positions", lambda _: jnp.asarray(sinusoids(dims.n_audio_ctx, dims.n_state))
        )
        if x.shape[1] > dims.n_audio_ctx:
            raise ValueError(f"{x.shape[1]} encoder positions; the model has {dims.n_audio_ctx}")
        positions = all_gather(positions.astype(x.dtype), options)[: x.shape[1]]
        x = x + positions[None]
        layers = stack_of_layers(EncoderLayer, dims.n_audio_layer, options)
        sizes = dims.n_state, dims.n_audio_head, dims.n_audio_mlp
        x, _ = layers(*sizes, options, name="layers")(x)
        return Norm(options, name="norm")(x)
