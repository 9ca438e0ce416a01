"""The text decoder: token and learned position embeddings, then residual blocks."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from fastwhisper_jax.models.attention import Attention
from fastwhisper_jax.models.layers import EMBEDDING_STDDEV, HIDDEN, MLP, Norm, stack_of_layers
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.partition import embedding_lookup, with_sharding_constraint
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions


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

    def __call__(self, x: jax.Array, encoder_states: jax.Array) -> tuple[jax.Array, None]:
        """Maps all target positions x (B, T, D) at once, given encoder_states (B, S, D)."""
        x = with_sharding_constraint(x, self.options)
        normed = self.attn_norm(x)
        keys, values = self.attn.keys_values(normed)
        causal = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
        cross_keys, cross_values = self.cross_attn.keys_values(encoder_states)
        x = self._residuals(x, normed, keys, values, causal, cross_keys, cross_values)
        x = with_sharding_constraint(x, self.options)
        self.sow(HIDDEN, "states", x)
        return x, None

    def cross_keys_values(self, encoder_states: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Projects encoder_states (B, S, D) to the keys and values (B, N, S, H) of the cache."""
        return self.cross_attn.keys_values(encoder_states)

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
        """Maps new target positions x (B, T, D), and adds them to the cache.

        Args:
            x: (B, T, D).
            keys, values: (B, N, K, H), the cache.
            cross_keys, cross_values: (B, N, S, H).
            position: where in the cache the keys and values of x are written.
            mask: (T, K) or (B, 1, T, K), True where x attends to the cache.

        Returns:
            (B, T, D), and the new keys and values of the cache.
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


class TextDecoder(nn.Module):
    """Maps tokens (B, T) and encoder states (B, S, D) to decoder states (B, T, D).

    The states are those after the last LayerNorm. The caller projects them on the vocabulary with
    `embed_tokens`, and may do so in chunks.
    """

    dims: ModelDimensions
    options: ModelOptions

    @nn.compact
    def __call__(self, tokens: jax.Array, encoder_states: jax.Array) -> jax.Array:
        dims, options = self.dims, self.options
        normal = nn.initializers.normal(EMBEDDING_STDDEV)
        embed_tokens = self.param("embed_tokens", normal, (dims.n_vocab, dims.n_state))
        positions = self.param("positions", normal, (dims.n_text_ctx, dims.n_state))
        dtype = options.compute_dtype
        # Positions are added in float32 and the sum is rounded once, on every mesh.
        x = embedding_lookup(embed_tokens, tokens, options) + positions[None, : tokens.shape[1]]
        x = with_sharding_constraint(x.astype(dtype), options)
        layers = stack_of_layers(DecoderLayer, dims.n_text_layer, options)
        sizes = dims.n_state, dims.n_text_head, dims.n_text_mlp
        x, _ = layers(*sizes, options, name="layers")(x, encoder_states.astype(dtype))
        return Norm(options, name="norm")(x)
