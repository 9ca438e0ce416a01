"""The TPU kernel of attention against the plain path, interpreted on CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from fastwhisper_jax.distillation.model_options import model_options
from fastwhisper_jax.models.attention import attend
from fastwhisper_jax.models.pallas_attention import (
    BACKWARD_ROWS,
    FORWARD_ROWS,
    can_use_pallas,
    pallas_attention,
)
from fastwhisper_jax.training.sharding import BATCH, make_mesh

HEADS, WIDTH, KEYS = 4, 256, 150


def inputs(queries, dtype=jnp.float32, rows=2):
    """Query, keys, values and a gradient of the result."""
    keys = jax.random.split(jax.random.key(queries), 4)
    lengths = (queries, KEYS, KEYS, queries)
    arrays = (jax.random.normal(k, (rows, n, WIDTH)) for k, n in zip(keys, lengths, strict=True))
    return [x.astype(dtype) for x in arrays]


def plain(query, keys, values):
    def split(x):
        return x.reshape(*x.shape[:2], HEADS, -1).transpose(0, 2, 1, 3)

    attended = attend(split(query), split(keys), split(values))
    return attended.transpose(0, 2, 1, 3).reshape(query.shape)


def fused(query, keys, values, placement=None):
    return pallas_attention(query, keys, values, HEADS, placement, interpret=True)


@pytest.mark.parametrize("queries", [8, FORWARD_ROWS, FORWARD_ROWS + 100])
def test_it_attends_as_the_plain_path_does(queries):
    query, keys, values, _ = inputs(queries)
    ours, theirs = fused(query, keys, values), plain(query, keys, values)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("queries", [8, 2 * BACKWARD_ROWS, BACKWARD_ROWS + 100])
def test_its_gradients_are_those_of_the_plain_path(queries):
    """Also where the last block of queries reaches past their end."""
    *arrays, gradient = inputs(queries)
    for ours, theirs in zip(
        jax.vjp(fused, *arrays)[1](gradient), jax.vjp(plain, *arrays)[1](gradient), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=5e-5)


def test_in_bfloat16_it_keeps_the_dtype_and_scores_in_float32():
    query, keys, values, _ = inputs(64, jnp.bfloat16)
    ours = fused(query, keys, values)
    exact = plain(*(x.astype(jnp.float32) for x in (query, keys, values)))
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_allclose(ours.astype(jnp.float32), exact, atol=0.03)


@pytest.mark.parametrize(
    ("shape", "spec"), [((2, 4, 1), P(*BATCH)), ((2, 2, 2), P(*BATCH, None, "tensor"))]
)
def test_rows_and_heads_over_8_devices_are_attended_as_on_one(shape, spec):
    query, keys, values, gradient = inputs(24, rows=8)
    placement = NamedSharding(make_mesh(*shape), spec)

    def run(*arrays):
        return jax.vjp(lambda *given: fused(*given, placement), *arrays)

    divided, back = jax.jit(run)(query, keys, values)
    assert divided.sharding.spec == spec
    whole, whole_back = jax.vjp(fused, query, keys, values)
    np.testing.assert_allclose(divided, whole, atol=1e-6)
    for ours, theirs in zip(back(gradient), whole_back(gradient), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=5e-5)


def test_published_widths_fill_the_vectors_of_a_tpu_and_odd_ones_do_not():
    assert all(can_use_pallas(width, width // 64) for width in (384, 512, 768, 1024, 1280))
    assert not can_use_pallas(192, 3)
    assert not can_use_pallas(256, 3)


def test_a_devices_share_of_the_heads_must_fill_them_too():
    """Of large-v3's 20 heads, two devices have 10 each and four 5: an odd one is left over."""
    for devices, fuses in ((2, True), (4, False)):
        mesh = make_mesh(-1, 1, devices)
        placement = NamedSharding(mesh, P(*BATCH, None, "tensor"))
        assert can_use_pallas(1280, 20, placement) == fuses


def test_the_mesh_and_not_the_process_decides_for_the_kernel():
    assert model_options(make_mesh(1, 8), "float32").attention == "xla"
    one = make_mesh(1, 1, devices=jax.devices()[:1])
    assert model_options(one, "float32").attention == "per_head"
    assert model_options(one, "float32").encodes_by_row
    assert not model_options(one, "float32", trains_encoder=True).encodes_by_row
    assert not model_options(make_mesh(1, 8), "float32").encodes_by_row
