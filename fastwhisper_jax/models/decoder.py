"""The text decoder: token and learned position embeddings, then residual blocks."""

import flax.linen as nn
import jax

from fastwhisper_jax.models.dimensions import ModelDimensions, ModelOptions
from fastwhisper_jax.models.layers import EMBEDDING_STDDEV, DecoderLayer, Norm


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
        if options.activations is not None:
            # Gathered for the look-up: into a divided embedding every row's gradient would travel.
            whole = jax.sharding.NamedSharding(
                options.activations.mesh, jax.sharding.PartitionSpec()
            )
            embed_tokens = jax.lax.with_sharding_constraint(embed_tokens, whole)
        x = embed_tokens[tokens] + positions[None, : tokens.shape[1]]
        x = x.astype(options.compute_dtype)
        layer = DecoderLayer
        if options.rematerialise:
            layer = nn.remat(layer, prevent_cse=False)
        layers = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,
            length=dims.n_text_layer,
        )(dims.n_state, dims.n_text_head, dims.n_text_mlp, options, name="layers")
        x, _ = layers(x, hidden.astype(options.compute_dtype))
        return Norm(options, name="norm")(x)
