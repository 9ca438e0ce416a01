"""Weights divided over a mesh: all_gather for use, gradients left where the weights lie."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from fastwhisper_jax.distillation.model_options import model_options
from fastwhisper_jax.models.layers import MLP
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.partition import all_gather, embedding_lookup
from fastwhisper_jax.models.whisper.sharding_rules import RULES, WIDTH_AXES
from fastwhisper_jax.training.sharding import batch_sharding, make_mesh, tree_shardings

MESH_SHAPES = [(1, 8, 1), (2, 4, 1), (8, 1, 1), (1, 4, 2), (2, 2, 2), (1, 1, 8)]


def divided(array, mesh):
    return jax.device_put(array, NamedSharding(mesh, P(None, WIDTH_AXES)))


@pytest.fixture(params=MESH_SHAPES, ids=str)
def mesh(request):
    return make_mesh(*request.param)


def test_an_embedding_divided_over_its_width_is_looked_up_as_a_whole_one(mesh):
    table = jax.random.normal(jax.random.key(0), (50, 16))
    tokens = jax.random.randint(jax.random.key(1), (8, 3), 0, 50)
    options = model_options(mesh, "float32")

    def total(table, options):
        return jnp.sum(jnp.sin(embedding_lookup(table, tokens, options)))

    value, gradient = jax.jit(jax.value_and_grad(lambda t: total(t, options)))(divided(table, mesh))
    expected, expected_gradient = jax.value_and_grad(lambda t: total(t, ModelOptions()))(table)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


def test_neither_the_embedding_nor_its_gradient_travels():
    mesh = make_mesh(1, 8)
    options = model_options(mesh, "float32")
    table = divided(jnp.zeros((50, 16)), mesh)
    tokens = jnp.zeros((8, 3), int)
    loss = jax.grad(lambda table: jnp.sum(embedding_lookup(table, tokens, options) ** 2))
    program = jax.jit(loss, out_shardings=table.sharding).lower(table).compile().as_text()
    assert "all-to-all" in program
    assert "f32[50,16]" not in program


def test_a_gathered_weights_gradient_is_not_gathered():
    mesh = make_mesh(1, 8)
    options = model_options(mesh, "float32")
    weight, x = divided(jnp.ones((16, 32)), mesh), jnp.ones((8, 16))

    def loss(weight):
        return jnp.sum((x @ all_gather(weight, options)) ** 2)

    gradient = jax.jit(jax.grad(loss), out_shardings=weight.sharding)(weight)
    assert gradient.sharding == weight.sharding
    np.testing.assert_allclose(
        gradient, jax.grad(lambda w: jnp.sum((x @ w) ** 2))(jnp.ones((16, 32)))
    )


def test_along_the_tensor_axis_a_weight_stays_where_it_is():
    mesh = make_mesh(1, 2, 4)
    options = model_options(mesh, "float32")
    weight = jax.device_put(jnp.ones((16, 32)), NamedSharding(mesh, P("fsdp", "tensor")))
    used = jax.jit(lambda w: all_gather(w, options, tensor_dim=1))(weight)
    assert used.sharding.spec == P(None, "tensor")


def test_a_layer_on_a_tensor_axis_adds_up_and_gathers_nothing_of_its_activations():
    """Column parallel, then row parallel: one sum over the devices that share the rows."""
    mesh = make_mesh(2, 1, 4)
    options = model_options(mesh, "float32")
    mlp = MLP(16, 64, options)
    x = jax.device_put(jnp.ones((2, 5, 16)), batch_sharding(mesh))
    params = mlp.init(jax.random.key(0), x)["params"]
    named = {"layers": {"mlp": jax.tree.map(lambda leaf: leaf[None], params)}}
    placed = jax.device_put(named, tree_shardings(named, RULES, mesh))

    def run(named, x):
        return mlp.apply({"params": jax.tree.map(lambda leaf: leaf[0], named["layers"]["mlp"])}, x)

    program = jax.jit(run).lower(placed, x).compile().as_text()
    assert len(re.findall(r" all-reduce(?:-start)?\(", program)) == 1
    assert "all-gather" not in program and "all-to-all" not in program
    whole = MLP(16, 64, ModelOptions()).apply({"params": params}, x)
    np.testing.assert_allclose(jax.jit(run)(placed, x), whole, rtol=1e-5, atol=1e-6)


def test_without_a_mesh_nothing_is_done():
    weight = jnp.ones((4, 4))
    assert all_gather(weight, ModelOptions()) is weight
