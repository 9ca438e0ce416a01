"""Attention without a mask as a TPU kernel, whose scores never leave the chip.

Whisper attends to at most 1500 audio positions. One block of the kernel therefore holds all keys
and values of a few heads, and each row of scores is complete. The softmax is the ordinary one,
without a running maximum and without padding.

Whisper's heads are H = 64 wide, and a TPU's vectors have 128 lanes. A block therefore takes two
adjacent heads from arrays (B, T, D), which is the layout of the projections. Nothing is transposed.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import NamedSharding

# A block of an array in the chip's memory, which is read and written by index.
Ref = Any
Inputs = tuple[jax.Array, jax.Array, jax.Array]

LANES = 128
FORWARD_ROWS = 512
BACKWARD_ROWS = 256
# A TensorCore has 16 to 128 MiB.
VMEM_BYTES = 14 * 2**20


def can_use_pallas(width: int, heads: int, sharding: NamedSharding | None = None) -> bool:
    """Returns whether the heads of one device fill whole vectors of a TPU.

    Args:
        width: D.
        heads: N.
        sharding: that of (B, T, D).
    """
    device_width = width
    if sharding is not None:
        device_width = sharding.shard_shape((sharding.mesh.size, 1, width))[2]
    return device_width % LANES == 0 and LANES % (width // heads) == 0


def pallas_attention(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    heads: int,
    sharding: NamedSharding | None = None,
    interpret: bool = False,
) -> jax.Array:
    """Returns softmax(query keys^T) values of every head, with scores and softmax in float32.

    Args:
        query: (B, T, D), scaled.
        keys, values: (B, K, D).
        heads: N, for which `can_use_pallas` is True.
        sharding: that of (B, T, D) on a mesh; each device attends for its own rows and heads.
        interpret: run the kernel as ordinary array operations, on any platform (for tests).

    Returns:
        (B, T, D) in the dtype of the values.
    """
    attend = functools.partial(_attend, query.shape[-1] // heads, interpret)
    if sharding is not None:
        # The compiler cannot shard a kernel by itself.
        spec = sharding.spec
        attend = jax.shard_map(
            attend, mesh=sharding.mesh, in_specs=(spec,) * 3, out_specs=spec, check_vma=False
        )
    return attend(query, keys, values)


def attention_flops(batch: int, queries: int, keys: int, width: int) -> int:
    """Returns the floating-point operations of the two products, over all heads."""
    return 4 * batch * queries * keys * width


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(
    head_width: int, interpret: bool, query: jax.Array, keys: jax.Array, values: jax.Array
) -> jax.Array:
    return _call(
        _forward_kernel,
        head_width,
        (query,),
        (keys, values),
        outputs=1,
        rows=FORWARD_ROWS,
        products=2,
        interpret=interpret,
    )[0]


def _attend_forward(
    head_width: int, interpret: bool, query: jax.Array, keys: jax.Array, values: jax.Array
) -> tuple[jax.Array, Inputs]:
    return _attend(head_width, interpret, query, keys, values), (query, keys, values)


def _attend_backward(
    head_width: int, interpret: bool, inputs: Inputs, gradient: jax.Array
) -> Inputs:
    query, keys, values = inputs
    d_query, d_keys, d_values = _call(
        functools.partial(_backward_kernel, queries=query.shape[1]),
        head_width,
        (query, gradient),
        (keys, values),
        outputs=3,
        rows=BACKWARD_ROWS,
        products=5,
        interpret=interpret,
    )
    return d_query, d_keys.astype(keys.dtype), d_values.astype(values.dtype)


_attend.defvjp(_attend_forward, _attend_backward)


def _call(
    kernel: Callable[..., None],
    head_width: int,
    by_query: tuple[jax.Array, ...],
    by_key: tuple[jax.Array, jax.Array],
    *,
    outputs: int,
    rows: int,
    products: int,
    interpret: bool,
) -> list[jax.Array]:
    """Runs a kernel over rows of the batch, pairs of heads and blocks of queries, in this order.

    Args:
        kernel: called with head_width, a block of each input and a block of each output.
        head_width: H.
        by_query: inputs (B, T, D), read in blocks of `rows` queries.
        by_key: inputs (B, K, D), of which a block holds all K.
        outputs: the number of outputs. The first has the shape of the queries. The others have the
            shape of the keys, are float32, and are summed over the blocks of queries.
        rows: the most queries of a block.
        products: the matrix products of the kernel; each costs half of `attention_flops`.
        interpret: as in `pallas_attention`.
    """
    batch, queries, width = by_query[0].shape
    length = by_key[0].shape[1]
    rows = min(rows, queries)
    query_block = pl.BlockSpec((1, rows, LANES), lambda b, n, t: (b, t, n))
    key_block = pl.BlockSpec((1, length, LANES), lambda b, n, t: (b, 0, n))
    shapes = [jax.ShapeDtypeStruct(by_query[0].shape, by_key[1].dtype)]
    shapes += [jax.ShapeDtypeStruct(by_key[0].shape, jnp.float32)] * (outputs - 1)
    arrays: tuple[Any, ...] = (*by_query, *by_key, *shapes)
    call = pl.pallas_call(
        functools.partial(kernel, head_width),
        out_shape=shapes,
        grid=(batch, width // LANES, pl.cdiv(queries, rows)),
        in_specs=[query_block] * len(by_query) + [key_block] * len(by_key),
        out_specs=[query_block] + [key_block] * (outputs - 1),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"),
            vmem_limit_bytes=VMEM_BYTES,
        ),
        cost_estimate=pl.CostEstimate(
            flops=products * attention_flops(batch, queries, length, width) // 2,
            transcendentals=batch * queries * length * (width // head_width),
            bytes_accessed=sum(x.size * x.dtype.itemsize for x in arrays),
        ),
        interpret=interpret,
        name="pallas_attention",
    )
    return list(call(*by_query, *by_key))


def _forward_kernel(head_width: int, query: Ref, keys: Ref, values: Ref, out: Ref) -> None:
    """Attends from one block of queries (1, rows, 128) to all keys and values (1, K, 128)."""
    for start in range(0, LANES, head_width):
        head = slice(start, start + head_width)
        scores = _matmul(query[0, :, head], keys[0, :, head], 1, 1)
        weights = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
        total = weights.sum(axis=-1, keepdims=True)
        attended = _matmul(weights.astype(values.dtype), values[0, :, head], 1, 0)
        out[0, :, head] = (attended / total).astype(out.dtype)


def _backward_kernel(
    head_width: int,
    query: Ref,
    gradient: Ref,
    keys: Ref,
    values: Ref,
    d_query: Ref,
    d_keys: Ref,
    d_values: Ref,
    *,
    queries: int,
) -> None:
    """Computes the gradients of one block of queries; d_keys and d_values sum over blocks."""
    block = pl.program_id(2)
    rows = query.shape[1]

    @pl.when(block == 0)
    def _() -> None:
        d_keys[...] = jnp.zeros(d_keys.shape, d_keys.dtype)
        d_values[...] = jnp.zeros(d_values.shape, d_values.dtype)

    # The last block may extend past the last query; the values there are undefined.
    row = block * rows + jax.lax.broadcasted_iota(jnp.int32, (rows, LANES), 0)
    is_query = row < queries
    block_query = jnp.where(is_query, query[0], jnp.zeros((), query.dtype))
    block_gradient = jnp.where(is_query, gradient[0], jnp.zeros((), gradient.dtype))
    for start in range(0, LANES, head_width):
        head = slice(start, start + head_width)
        head_query, head_gradient = block_query[:, head], block_gradient[:, head]
        head_keys, head_values = keys[0, :, head], values[0, :, head]
        scores = _matmul(head_query, head_keys, 1, 1)
        weights = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
        weights = weights / weights.sum(axis=-1, keepdims=True)
        d_weights = _matmul(head_gradient, head_values, 1, 1)
        mean = (weights * d_weights).sum(axis=-1, keepdims=True)
        d_scores = (weights * (d_weights - mean)).astype(query.dtype)
        d_query[0, :, head] = _matmul(d_scores, head_keys, 1, 0).astype(d_query.dtype)
        d_keys[0, :, head] += _matmul(d_scores, head_query, 0, 0)
        d_values[0, :, head] += _matmul(weights.astype(gradient.dtype), head_gradient, 0, 0)


def _matmul(left: jax.Array, right: jax.Array, left_axis: int, right_axis: int) -> jax.Array:
    contracted = (((left_axis,), (right_axis,)), ((), ()))
    return jax.lax.dot_general(left, right, contracted, preferred_element_type=jnp.float32)
