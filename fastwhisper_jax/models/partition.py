"""Where a forward pass keeps activations and weights on a mesh: nothing of it changes a number.

Weights are stored divided over the mesh. Along the parameter axis a layer gathers those that it is
about to use, in the compute dtype; left to itself the compiler multiplies by one part after the
other instead, and moves the activations once for each of them. Along the tensor axis they stay
divided: each device computes some of the heads, and of the MLP, for rows that it shares with its
neighbours there (Shoeybi et al., "Megatron-LM", arXiv 1909.08053).
"""

import functools

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from fastwhisper_jax.models.options import ModelOptions


def with_sharding_constraint(x: jax.Array, options: ModelOptions) -> jax.Array:
    """x (B, ...), held where `options.activations` says."""
    if options.activations is None:
        return x
    return jax.lax.with_sharding_constraint(x, options.activations)


def all_gather(
    weight: jax.Array, options: ModelOptions, tensor_dim: int | None = None
) -> jax.Array:
    """A divided weight, whole on every device; its gradient lies where the weight does.

    Args:
        weight: of a layer.
        options: say how it is divided.
        tensor_dim: the dimension that stays divided over the tensor axis, where there is one.
    """
    if options.activations is None:
        return weight
    spec: list[str | None] = [None] * weight.ndim
    if tensor_dim is not None:
        spec[tensor_dim] = options.tensor_axis
    return _hold(NamedSharding(options.activations.mesh, P(*spec)), weight)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _hold(sharding: NamedSharding, weight: jax.Array) -> jax.Array:
    return jax.lax.with_sharding_constraint(weight, sharding)


# The transpose of a constraint is the same constraint: it would gather the gradient too.
_hold.defvjp(
    lambda sharding, weight: (_hold(sharding, weight), None),
    lambda sharding, _, gradient: (gradient,),
)


def head_sharding(options: ModelOptions) -> NamedSharding | None:
    """Where queries, keys and values (B, T, D) lie: whole heads over the tensor axis."""
    held = options.activations
    if held is None or options.tensor_axis is None:
        return held
    return NamedSharding(held.mesh, P(*held.spec, None, options.tensor_axis))


def embedding_lookup(table: jax.Array, tokens: jax.Array, options: ModelOptions) -> jax.Array:
    """Rows of an embedding: table (V, D) and tokens (B, T) to (B, T, D).

    Where the table is divided over its width, every device looks up its columns for the tokens of
    all devices that hold the others, and they exchange what they found: neither the table nor its
    gradient travels.
    """
    if options.activations is None:
        return table[tokens]
    axis, tensor_axis = options.parameter_axis, options.tensor_axis
    if axis is None:
        return all_gather(table, options)[tokens]

    def columns(part: jax.Array, rows: jax.Array) -> jax.Array:
        rows = jax.lax.all_gather(rows, axis, tiled=True)
        return jax.lax.all_to_all(part[rows], axis, split_axis=0, concat_axis=2, tiled=True)

    by_row = options.activations.spec
    return jax.shard_map(
        columns,
        mesh=options.activations.mesh,
        # Neighbours along `axis` hold neighbouring columns, so it is named last.
        in_specs=(P(None, (tensor_axis, axis) if tensor_axis else axis), by_row),
        out_specs=P(*by_row, None, tensor_axis),
    )(table, tokens)
