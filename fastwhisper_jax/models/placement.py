"""Where a forward pass keeps activations and weights on a mesh: nothing of it changes a number.

Weights are stored divided over one axis of the mesh. A layer gathers those that it is about to use,
in the compute dtype; left to itself the compiler multiplies by one part after the other instead,
and moves the activations once for each of them.
"""

import functools

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from fastwhisper_jax.models.dimensions import ModelOptions


def placed(x: jax.Array, options: ModelOptions) -> jax.Array:
    """x (B, ...), held where `options.activations` says."""
    if options.activations is None:
        return x
    return jax.lax.with_sharding_constraint(x, options.activations)


def gathered(weight: jax.Array, options: ModelOptions) -> jax.Array:
    """The whole of a divided weight on every device; its gradient lies where the weight does."""
    if options.activations is None:
        return weight
    return _replicate(NamedSharding(options.activations.mesh, P()), weight)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _replicate(everywhere: NamedSharding, weight: jax.Array) -> jax.Array:
    return jax.lax.with_sharding_constraint(weight, everywhere)


# The transpose of a constraint is the same constraint: it would gather the gradient too.
_replicate.defvjp(
    lambda everywhere, weight: (_replicate(everywhere, weight), None),
    lambda everywhere, _, gradient: (gradient,),
)


def look_up(table: jax.Array, tokens: jax.Array, options: ModelOptions) -> jax.Array:
    """Rows of an embedding: table (V, D) and tokens (B, T) to (B, T, D).

    Where the table is divided over its width, every device looks up its columns for the tokens of
    all devices that hold the others, and they exchange what they found: neither the table nor its
    gradient travels.
    """
    if options.activations is None:
        return table[tokens]
    axis = options.parameter_axis
    if axis is None:
        return gathered(table, options)[tokens]

    def columns(part: jax.Array, rows: jax.Array) -> jax.Array:
        rows = jax.lax.all_gather(rows, axis, tiled=True)
        return jax.lax.all_to_all(part[rows], axis, split_axis=0, concat_axis=2, tiled=True)

    by_row = options.activations.spec
    return jax.shard_map(
        columns,
        mesh=options.activations.mesh,
        in_specs=(P(None, axis), by_row),
        out_specs=by_row,
    )(table, tokens)
