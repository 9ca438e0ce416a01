"""Compares our TPU attention kernel with those of jax, by the TPU compiler; no TPU is needed.

    python benchmarks/attention.py

The work: one encoder attention of whisper-large-v3 in bfloat16, on one chip's share of a batch of
64 over the 8 chips of v5e:2x4: 8 rows, 1500 positions, 20 heads of 64. Every contender takes and
returns (B, T, D), the layout of the projections, so that its transposes and padding count. jax's
kernels need positions padded to 1536, which segment ids keep apart.

Memory is the compiler's. Bytes are counted in the compiled program, in which a kernel reads each of
its inputs once, whatever its blocks. The program does not show what a kernel computes, so flops are
arithmetic: two matrix products forward and as many backward as `Contender` says, each over all of
its positions.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import flash_attention as flash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import SingleDeviceSharding
from side_by_side import table

from fastwhisper_jax.cost.measure import measure
from fastwhisper_jax.cost.topology import find_slice
from fastwhisper_jax.models.pallas_attention import attention_flops, pallas_attention

ROWS, HEADS, POSITIONS, PADDED, WIDTH = 8, 20, 1500, 1536, 1280
Attention = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def heads_first(x: jax.Array, positions: int) -> jax.Array:
    """(B, T, D) to (B, N, `positions`, H), zero after T."""
    x = jnp.pad(x, ((0, 0), (0, positions - POSITIONS), (0, 0)))
    return x.reshape(ROWS, positions, HEADS, -1).swapaxes(1, 2)


def heads_last(x: jax.Array) -> jax.Array:
    return x.swapaxes(1, 2).reshape(ROWS, -1, WIDTH)[:, :POSITIONS]


def padding_ids() -> jax.Array:
    """(B, padded T): 1 in the padding, which is therefore a segment of its own."""
    return jnp.tile((jnp.arange(PADDED) >= POSITIONS).astype(jnp.int32), (ROWS, 1))


def xla_attention(query: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
    query, keys, values = (heads_first(x, POSITIONS) for x in (query, keys, values))
    scores = jnp.einsum("bnth,bnkh->bntk", query, keys, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores).astype(values.dtype)
    return heads_last(jnp.einsum("bntk,bnkh->bnth", weights, values))


def flash_attention(query: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
    ids = padding_ids()
    padded = (heads_first(x, PADDED) for x in (query, keys, values))
    return heads_last(flash.flash_attention(*padded, segment_ids=flash.SegmentIds(ids, ids)))


def splash_attention(
    sizes: splash.BlockSizes, query: jax.Array, keys: jax.Array, values: jax.Array
) -> jax.Array:
    mask = masks.MultiHeadMask([masks.FullMask((PADDED, PADDED)) for _ in range(HEADS)])
    kernel = splash.make_splash_mha_single_device(mask=mask, block_sizes=sizes)
    ids = padding_ids()
    padded = (heads_first(x, PADDED) for x in (query, keys, values))
    return heads_last(jax.vmap(kernel)(*padded, splash.SegmentIds(ids, ids)))


TWO_KERNELS = splash.BlockSizes(
    block_q=512,
    block_kv=512,
    block_q_dkv=512,
    block_kv_dkv=512,
    block_q_dq=512,
    block_kv_dq=512,
)
# A block holds all keys, so that the gradient of the queries is not a sum over blocks.
ONE_KERNEL = splash.BlockSizes(
    block_q=512,
    block_kv=PADDED,
    block_kv_compute=512,
    block_q_dkv=512,
    block_kv_dkv=PADDED,
    block_kv_dkv_compute=512,
    use_fused_bwd_kernel=True,
)


class Contender(NamedTuple):
    """A way to attend, the positions that it computes, and its matrix products backward."""

    attend: Attention
    positions: int
    backward: int


CONTENDERS = {
    "ours": Contender(functools.partial(pallas_attention, heads=HEADS), POSITIONS, 5),
    "XLA": Contender(xla_attention, POSITIONS, 4),
    "flash_attention": Contender(flash_attention, PADDED, 7),
    "splash_attention": Contender(functools.partial(splash_attention, TWO_KERNELS), PADDED, 7),
    "splash_attention, one kernel backward": Contender(
        functools.partial(splash_attention, ONE_KERNEL), PADDED, 5
    ),
}


def with_gradient(attend: Attention) -> Callable[..., tuple[jax.Array, ...]]:
    """The result and the gradients of its inputs."""

    def both(
        query: jax.Array, keys: jax.Array, values: jax.Array, gradient: jax.Array
    ) -> tuple[jax.Array, ...]:
        result, backward = jax.vjp(attend, query, keys, values)
        return result, *backward(gradient)

    return both


def main() -> None:
    slice_ = find_slice("v5e:2x4")
    sharding = SingleDeviceSharding(slice_.devices[0])
    array = jax.ShapeDtypeStruct((ROWS, POSITIONS, WIDTH), jnp.bfloat16, sharding=sharding)
    rows = []
    for name, (attend, positions, backward) in CONTENDERS.items():
        for direction, function, inputs, products in (
            ("forward", attend, 3, 2),
            ("forward and backward", with_gradient(attend), 4, 2 + backward),
        ):
            measured = measure(jax.jit(function), (array,) * inputs, slice_.chip)
            assert measured is not None, f"{name} does not fit"
            flops = products * attention_flops(ROWS, positions, positions, WIDTH) // 2
            rows.append(
                [
                    f"{name}: {direction}",
                    f"{flops / 1e9:.1f}",
                    f"{measured.cost.bytes_accessed / 1e9:.2f}",
                    f"{measured.cost.hbm_bytes / 1e9:.2f}",
                    f"{measured.temp_gib * 1024:.0f}",
                    f"{measured.compile_seconds:.0f}",
                ]
            )
    titles = [
        "",
        "Gflop",
        "accessed, GB",
        "in HBM, GB",
        "temporary and results, MiB",
        "to compile, s",
    ]
    print(table(titles, rows))


if __name__ == "__main__":
    main()
