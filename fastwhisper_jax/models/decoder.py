"""The text decoder: token and learned position embeddings, then residual blocks."""

import flax.linen as nn
import jax

from fastwhisper_jax.models.dimensions import ModelDimensions, ModelOptions
from fastwhisper_jax.models.layers import EMBEDDING_STDDEV, DecoderLayer, Norm, rematerialised
from fastwhisper_jax.models.placement import look_up, placed


class TextDecoder(nn.Module):
    """Maps tokens (B, T) and audio features (B, S, D) to states (B, T, D).

    The states are those after the last LayerNorm; the vocabulary projection, tied to
    `embed_tokens`, is left to the caller, who can chunk it.
    """

    dims: ModelDimensions
    options: ModelOptions

    @nn.compact
    def __call__(self, tokens: jax.Array, hidden: jax.Array) -> jax.Array:
        dims, options = self.dims, self.options
        normal = nn.initializers.normal(EMBEDDING_STDDEV)
        embed_tokens = self.param("embed_tokens", normal, (dims.n_vocab, dims.n_state))
        positions = self.param("positions", normal, (dims.n_text_ctx, dims.n_state))
        dtype = options.compute_dtype
        # Positions are added in float32 and rounded once, also where the table is read divided.
        x = look_up(embed_tokens, tokens, options) + positions[None, : tokens.shape[1]]
        x = placed(x.astype(dtype), options)
        layers = nn.scan(
            rematerialised(DecoderLayer, options),
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,
            length=dims.n_text_layer,
        )(dims.n_state, dims.n_text_head, dims.n_text_mlp, options, name="layers")
        x, _ = layers(x, hidden.astype(dtype))
        return Norm(options, name="norm")(x)
