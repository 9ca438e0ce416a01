"""The table of names covers our tree exactly, and undoes itself."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import traverse_util

from fastwhisper_jax.models.whisper import hf_names
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.forward import init_params

TURBO = ModelDimensions(128, 1500, 20, 32, 5120, 51866, 448, 20, 4, 5120, 1280)
TINY_EN = ModelDimensions(80, 1500, 6, 4, 1536, 51864, 448, 6, 4, 1536, 384)


@pytest.mark.parametrize("published", [TURBO, TINY_EN], ids=["large-v3-turbo", "tiny.en"])
def test_table_names_every_leaf_of_the_model_with_its_shape(published):
    tree = jax.eval_shape(lambda key: init_params(published, key), jax.random.key(0))
    leaves = traverse_util.flatten_dict(tree, sep="/")
    assert {path: leaf.shape for path, leaf in leaves.items()} == hf_names.param_shapes(published)


def test_no_name_stands_for_two_parameters():
    ours, theirs = [row.ours for row in hf_names.TABLE], [row.theirs for row in hf_names.TABLE]
    assert len(set(ours)) == len(ours) == len(set(theirs)) == len(theirs)


def test_published_parameter_counts():
    base = dataclasses.replace(TINY_EN, n_vocab=51865, n_state=512, n_audio_mlp=2048)
    base = dataclasses.replace(base, n_text_mlp=2048, n_audio_layer=6, n_text_layer=6)
    assert hf_names.parameter_count(base) == 72_593_920
    assert hf_names.parameter_count(TURBO) == 808_878_080


def test_params_to_tensors_and_back_is_the_identity(dims, params):
    tensors = dict(hf_names.tensors_from_params(params, dims))
    assert {name: t.shape for name, t in tensors.items()} == hf_names.tensor_shapes(dims)
    back = hf_names.params_from_tensors(tensors.__getitem__, dims)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    assert jax.tree.all(jax.tree.map(np.array_equal, back, params))


def test_kernels_are_reversed_and_layers_keep_their_order(dims, params):
    tensors = dict(hf_names.tensors_from_params(params, dims))
    np.testing.assert_array_equal(
        tensors["model.encoder.conv1.weight"], params["encoder"]["conv1"]["kernel"].transpose()
    )
    for layer in range(dims.n_text_layer):
        np.testing.assert_array_equal(
            tensors[f"model.decoder.layers.{layer}.encoder_attn.q_proj.weight"],
            params["decoder"]["layers"]["cross_attn"]["query"]["kernel"][layer].T,
        )


def test_flax_tree_holds_every_value_once(dims, params):
    leaves = jax.tree.leaves(hf_names.flax_tree_from_params(params, dims))
    assert sum(leaf.size for leaf in leaves) == hf_names.parameter_count(dims)
    assert len(leaves) == len(hf_names.tensor_shapes(dims))
