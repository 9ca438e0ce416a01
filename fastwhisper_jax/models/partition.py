"""How activations and weights are sharded in a forward pass. None of it changes a number.

Weights are sharded over the mesh in storage. Along the parameter axis a layer gathers the weights
that it is about to use, in the compute dtype. Without this the compiler may multiply by one part
of a weight after another, and move the activations for each of them.

Along the tensor axis weights stay sharded. The devices along this axis share their rows, and each
computes some of the heads and some of the MLP.

Source: Shoeybi et al., "Megatron-LM", arXiv 1909.08053.
"""

import functools

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from fastwhisper_jax.models.options import ModelOptions


def with_sharding_constraint(x: jax.Array, options: ModelOptions) -> jax.Array:
    """Constrains x (B, ...) to the sharding `options.activations`."""
    if options.activations is None:
        return x
    return jax.lax.with_sharding_constraint(x, options.activations)


def all_gather(
    weight: jax.Array, options: ModelOptions, tensor_dim: int | None = None
) -> jax.Array:
    """Gathers a sharded weight on every device; its gradient is not gathered.

    Args:
        weight: a weight of a layer.
        options: the mesh and its tensor axis.
        tensor_dim: the dimension that stays sharded over the tensor axis, where there is one.
    """
    if options.activations is None:
        return weight
    spec: list[str | None] = [None] * weight.ndim
    if tensor_dim is not None:
        spec[tensor_dim] = options.tensor_axis
    return _constrain_forward(NamedSharding(options.activations.mesh, P(*spec)), weight)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _constrain_forward(sharding: NamedSharding, weight: jax.Array) -> jax.Array:
    return jax.lax.with_sharding_constraint(weight, sharding)


# The transpose of a sharding constraint is the same constraint, which would make every device hold
# and sum the whole gradient. Without it the gradient takes the sharding of the stored weight.
_constrain_forward.defvjp(
    lambda sharding, weight: (_constrain_forward(sharding, weight), None),
    lambda sharding, _, gradient: (gradient,),
)


def head_sharding(options: ModelOptions) -> NamedSharding | None:
    """Returns the sharding of queries, keys and values (B, T, D): by heads over the tensor axis."""
    rows = options.activations
    if rows is None or options.tensor_axis is None:
        return rows
    return NamedSharding(rows.mesh, P(*rows.spec, None, options.tensor_axis))


def embedding_lookup(table: jax.Array, tokens: jax.Array, options: ModelOptions) -> jax.Array:
    """Returns the rows (B, T, D) of an embedding table (V, D) at tokens (B, T).

    Where the table is sharded over its width, each device looks up its own columns for the tokens
    of all devices along the axis, and then they exchange the results. Neither the table nor its
    gradient is moved between devices.
    """
    if options.activations is None:
        return table[tokens]
    axis, tensor_axis = options.parameter_axis, options.tensor_axis
    if axis is None:
        return all_gather(table, options)[tokens]

    def look_up(columns: jax.Array, tokens: jax.Array) -> jax.Array:
        tokens = jax.lax.all_gather(tokens, axis, tiled=True)
        return jax.lax.all_to_all(columns[tokens], axis, split_axis=0, concat_axis=2, tiled=True)

    rows = options.activations.spec
    return jax.shard_map(
        look_up,
        mesh=options.activations.mesh,
        # `axis` comes last because devices next to each other along it hold adjacent columns.
        in_specs=(P(None, (tensor_axis, axis) if tensor_axis else axis), rows),
        out_specs=P(*rows, None, tensor_axis),
    )(table, tokens)
