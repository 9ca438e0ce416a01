"""The count in a compiled program is XLA's own, except that loops count as often as they run."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from fastwhisper_jax.cost.hlo.cost import program_cost
from fastwhisper_jax.cost.hlo.text import parse
from fastwhisper_jax.training.sharding import make_mesh

SIZE = 64
PRODUCT = 2 * SIZE**3


def compiled(function, *shapes):
    return jax.jit(function).lower(*(jnp.zeros(shape) for shape in shapes)).compile()


def cost_of(function, *shapes):
    return program_cost(parse(compiled(function, *shapes).as_text()))


def scanned(length):
    return lambda x, ws: jax.lax.scan(lambda x, w: (x @ w, None), x, ws, length=length)[0]


def test_a_scan_of_16_products_costs_16_products():
    shapes = (SIZE, SIZE), (16, SIZE, SIZE)
    assert cost_of(scanned(16), *shapes).flops == 16 * PRODUCT
    # The compiler itself counts one body.
    assert compiled(scanned(16), *shapes).cost_analysis()["flops"] < 2 * PRODUCT


def test_nested_scans_multiply():
    def nested(x, ws):
        inner = scanned(3)
        return jax.lax.scan(lambda x, _: (inner(x, ws), None), x, None, length=5)[0]

    assert cost_of(nested, (SIZE, SIZE), (3, SIZE, SIZE)).flops == 15 * PRODUCT


def test_a_trip_count_follows_from_start_and_step():
    def loop(x, w):
        return jax.lax.while_loop(lambda c: c[0] < 11, lambda c: (c[0] + 2, c[1] @ w), (3, x))[1]

    assert cost_of(loop, (SIZE, SIZE), (SIZE, SIZE)).flops == 4 * PRODUCT


def test_unrolled_products_cost_what_xla_says():
    def unrolled(x, ws):
        for index in range(4):
            x = x @ ws[index]
        return x

    shapes = (SIZE, SIZE), (4, SIZE, SIZE)
    ours = cost_of(unrolled, *shapes)
    theirs = compiled(unrolled, *shapes).cost_analysis()
    assert ours.flops == theirs["flops"] == 4 * PRODUCT
    assert ours.bytes_accessed == pytest.approx(theirs["bytes accessed"], rel=0.1)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_costs_what_xla_says(stride):
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (stride,), [(1, 1)], dimension_numbers=("NWC", "WIO", "NWC")
        )

    shapes = (2, 30, 8), (3, 8, 16)
    theirs = compiled(convolve, *shapes).cost_analysis()["flops"]
    assert cost_of(convolve, *shapes).flops == theirs


def test_a_batched_product_written_as_a_dilated_convolution_counts_no_zeros():
    """The TPU compiler writes B = 8 times N = 20 products (128, 64) x (64, 128) like this."""
    text = """
ENTRY %main (a: bf16[8,20,64,128], b: bf16[8,20,64,128]) -> f32[8,20,128,128] {
  %a = bf16[8,20,64,128]{2,3,1,0:T(8,128)(2,1)} parameter(0)
  %b = bf16[8,20,64,128]{2,3,1,0:T(8,128)(2,1)S(1)} parameter(1)
  ROOT %c = f32[8,20,128,128]{2,3,1,0:T(8,128)} convolution(%a, %b), \
window={size=8x20 stride=7x19 lhs_dilate=8x20}, dim_labels=01fb_01io->01bf
}
"""
    cost = program_cost(parse(text))
    assert cost.flops == 2 * 8 * 20 * 128 * 64 * 128
    operand, result = 2 * 8 * 20 * 64 * 128, 4 * 8 * 20 * 128 * 128
    assert cost.bytes_accessed == 2 * operand + result
    # b is in the chip's own memory.
    assert cost.hbm_bytes == operand + result


def test_a_kernel_counts_its_own_cost_estimate():
    text = """
ENTRY %main (a: bf16[4,128]) -> bf16[4,128] {
  %a = bf16[4,128]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %k = bf16[4,128]{1,0} custom-call(%a), custom_call_target="tpu_custom_call", \
backend_config={"custom_call_config":{"cost_estimate":{"flops":"92160","transcendentals":"3"}}}
}
"""
    cost = program_cost(parse(text))
    assert cost.flops == cost.kernel_flops == 92160


def test_a_sliced_operand_counts_only_the_bytes_sliced():
    def row(table, index):
        return jax.lax.dynamic_index_in_dim(table, index.astype(int)) * 2.0

    assert cost_of(row, (1000, SIZE), ()).bytes_accessed < 4 * 4 * SIZE + 100


def collectives(function, in_specs, out_specs, *shapes):
    mesh = make_mesh(1, 8)
    mapped = jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )
    return cost_of(mapped, *shapes).collective_bytes


def test_collectives_are_counted_by_kind_and_by_what_a_device_receives():
    """Each of 8 devices lacks 7/8 of a gathered array; a reduction receives it in two passes."""
    size = 4 * SIZE * SIZE
    rows, whole = P("fsdp"), P()
    gather = collectives(lambda x: jax.lax.all_gather(x, "fsdp", tiled=True), rows, whole, (64, 64))
    assert gather == {"all-gather": size * 7 / 8}
    reduce = collectives(lambda x: jax.lax.psum(x, "fsdp"), whole, whole, (64, 64))
    assert reduce == {"all-reduce": 2 * size * 7 / 8}


def test_collectives_in_a_loop_are_multiplied():
    def loop(x):
        return jax.lax.scan(lambda x, _: (jax.lax.pmean(x, "fsdp"), None), x, None, length=6)[0]

    assert collectives(loop, P(), P(), (64, 64)) == {"all-reduce": 6 * 2 * 4 * SIZE**2 * 7 / 8}


def test_a_loop_without_a_constant_end_is_an_error():
    def loop(x, w, count):
        return jax.lax.fori_loop(0, count[0].astype(int), lambda _, x: x @ w, x)

    with pytest.raises(ValueError, match="trip count"):
        cost_of(loop, (SIZE, SIZE), (SIZE, SIZE), (1,))


@pytest.mark.parametrize(
    ("groups", "devices"),
    [
        ("{{0,1,2,3},{4,5,6,7}}", 4),
        ("[2,8]<=[16]", 8),
        ("mesh['a'=2,'b'=8] {'b'}", 8),
        ("mesh['a'=1,'b'=8,'c'=32], device_ids=([32,8]T(1,0)) {'b'}", 8),
        ("mesh['a'=32,'b'=8] {'a':(2)4,'b'}", 32),
    ],
)
def test_a_collectives_group_is_read_in_every_notation(groups, devices):
    text = f"""
ENTRY %main (a: f32[128]) -> f32[128] {{
  %a = f32[128]{{0}} parameter(0)
  ROOT %r = f32[128]{{0}} all-reduce(%a), channel_id=1, replica_groups={groups}, to_apply=%add
}}
"""
    received = 2 * 512 * (devices - 1) / devices
    assert program_cost(parse(text)).collective_bytes == {"all-reduce": pytest.approx(received)}
