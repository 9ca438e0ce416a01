"""Every parameter of every published Whisper has its place on the mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fastwhisper_jax.distillation.model_options import check_tensor_axis
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.sharding_rules import RULES
from fastwhisper_jax.training.sharding import (
    batch_shards,
    check_batch,
    make_mesh,
    put_batch,
    tree_shardings,
)
from fastwhisper_jax.training.state import init_state, split_params

# Width, heads, encoder layers, decoder layers, mel bins, vocabulary.
PUBLISHED = {
    "tiny.en": (384, 6, 4, 4, 80, 51864),
    "tiny": (384, 6, 4, 4, 80, 51865),
    "base": (512, 8, 6, 6, 80, 51865),
    "small": (768, 12, 12, 12, 80, 51865),
    "medium": (1024, 16, 24, 24, 80, 51865),
    "large-v2": (1280, 20, 32, 32, 80, 51865),
    "large-v3": (1280, 20, 32, 32, 128, 51866),
    "large-v3-turbo": (1280, 20, 32, 4, 128, 51866),
}


@functools.cache
def state_shapes(size):
    """The train state of a student of this size, all of it trained, with an earlier self."""
    width, heads, encoder, decoder, mels, vocab = PUBLISHED[size]
    dims = ModelDimensions(
        mels, 1500, heads, encoder, 4 * width, vocab, 448, heads, decoder, 4 * width, width
    )

    def make():
        params = whisper.init_params(dims, jax.random.key(0))
        return init_state(*split_params(params, ()), optax.adamw(1e-3), keeps_self_teacher=True)

    return jax.eval_shape(make)


def mesh_of(fsdp, tensor=1):
    return make_mesh(-1, fsdp, tensor)


@pytest.mark.parametrize(("fsdp", "tensor"), [(1, 1), (2, 1), (4, 1), (8, 1), (4, 2), (1, 2)])
@pytest.mark.parametrize("size", PUBLISHED)
def test_every_leaf_of_every_published_size_is_placed_and_divides(
    size, fsdp, tensor, bytes_per_device
):
    shapes = state_shapes(size)
    shardings = tree_shardings(shapes, RULES, mesh_of(fsdp, tensor))
    assert jax.tree.structure(shardings) == jax.tree.structure(shapes)
    total = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
    share = bytes_per_device(shapes, shardings)
    # Only norms and biases are whole on every device.
    assert total / fsdp / tensor <= share <= 1.02 * total / fsdp / tensor


def test_a_leaf_without_a_rule_is_an_error_that_names_it():
    tree = {
        "decoder": {
            "adapter": {"down": jax.ShapeDtypeStruct((8, 4), jnp.float32)},
            "embed_tokens": jax.ShapeDtypeStruct((7, 12), jnp.float32),
        }
    }
    with pytest.raises(InputError) as error:
        tree_shardings(tree, RULES, mesh_of(8))
    assert str(error.value) == (
        "no sharding rule matches decoder/adapter/down (8, 4); "
        "decoder/embed_tokens (7, 12): 12 does not divide over fsdp=8; "
        "change mesh.fsdp or mesh.tensor"
    )


def test_a_leaf_over_two_axes_must_divide_over_both():
    tree = {"decoder": {"embed_tokens": jax.ShapeDtypeStruct((7, 12), jnp.float32)}}
    with pytest.raises(InputError, match="12 does not divide over tensor=4 x fsdp=2"):
        tree_shardings(tree, RULES, mesh_of(2, 4))


def test_devices_along_the_tensor_axis_share_their_rows():
    mesh = mesh_of(2, 2)
    assert batch_shards(mesh.shape) == 4
    check_batch("training.global_batch_size", 4, mesh)
    rows = put_batch({"x": np.arange(4)[:, None]}, mesh)["x"]
    assert [shard.data.item() for shard in rows.addressable_shards] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_heads_and_tokens_must_divide_over_the_tensor_axis():
    dims = functools.partial(ModelDimensions, 80, 1500, n_audio_layer=1, n_audio_mlp=64, n_vocab=9)
    dims = functools.partial(dims, n_text_ctx=448, n_text_layer=1, n_text_mlp=64, n_state=64)
    models = {"teacher": dims(20, n_text_head=20), "student": dims(6, n_text_head=4)}
    check_tensor_axis(models, [128, 448], mesh_of(1, 2))
    with pytest.raises(InputError) as error:
        check_tensor_axis(models, [128, 30], mesh_of(1, 8))
    assert str(error.value) == (
        "the teacher's 20 heads do not; the student's 4 heads do not; the student's 6 heads do "
        "not; batches of 30 target tokens do not divide over mesh.tensor=8; change mesh.tensor"
    )


class Chip:
    """A device of one of several slices, as far as a mesh looks at it."""

    platform = device_kind = "chip"
    process_index = 0

    def __init__(self, number, slice_index):
        self.id, self.slice_index = number, slice_index


def test_slices_are_apart_along_data_alone():
    devices = [Chip(number, number // 8) for number in range(16)]
    mesh = make_mesh(-1, 4, 2, devices=devices)
    assert tuple(mesh.shape.values()) == (2, 4, 2)
    slices = np.vectorize(lambda device: device.slice_index)(mesh.devices)
    np.testing.assert_array_equal(slices, np.arange(2)[:, None, None] * np.ones((2, 4, 2)))
    with pytest.raises(InputError, match="several of 2 slices of 8 devices; only mesh.data may"):
        make_mesh(-1, 16, devices=devices)


def test_a_batch_that_does_not_divide_is_told_what_would():
    mesh = mesh_of(2)
    check_batch("training.global_batch_size", 64, mesh, accumulation_steps=4)
    with pytest.raises(InputError) as error:
        check_batch("training.global_batch_size", 100, mesh)
    assert str(error.value) == (
        "training.global_batch_size=100 does not divide over 8 devices on mesh axes "
        "('data', 'fsdp'); use a multiple of 8"
    )
    with pytest.raises(InputError, match=r"=8 does not .* in 4 micro-batches; .* multiple of 32"):
        check_batch("training.global_batch_size", 8, mesh, accumulation_steps=4)


@pytest.mark.parametrize("data, fsdp", [(3, 2), (-1, 3), (2, 2), (-1, 16)])
def test_a_mesh_must_make_up_the_devices(data, fsdp):
    with pytest.raises(InputError, match=rf"mesh\.data={data} x mesh\.fsdp={fsdp} x"):
        make_mesh(data, fsdp)


@pytest.mark.parametrize(
    "data, fsdp, shape", [(-1, 1, (8, 1, 1)), (-1, 4, (2, 4, 1)), (4, 2, (4, 2, 1))]
)
def test_data_takes_what_fsdp_leaves(data, fsdp, shape):
    assert tuple(make_mesh(data, fsdp).shape.values()) == shape


def test_rows_lie_on_the_devices_in_their_order():
    rows = np.arange(16, dtype=np.int32)[:, None] * np.ones((1, 3), np.int32)
    array = put_batch({"x": rows}, mesh_of(2))["x"]
    np.testing.assert_array_equal(array, rows)
    by_device = [shard.data[:, 0].tolist() for shard in array.addressable_shards]
    assert by_device == [[2 * i, 2 * i + 1] for i in range(8)]
