"""Weights sharded over a mesh: layers gather them, and their gradients stay sharded."""

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


def sharded(array, mesh):
    return jax.device_put(array, NamedSharding(mesh, P(None, WIDTH_AXES)))


@pytest.fixture(params=MESH_SHAPES, ids=str)
def mesh(request):
    return make_mesh(*request.param)


def test_an_embedding_sharded_over_its_width_is_looked_up_like_a_whole_one(mesh):
    table = jax.random.normal(jax.random.key(0), (50, 16))
    tokens = jax.random.randint(jax.random.key(1), (8, 3), 0, 50)
    options = model_options(mesh, "float32")

    def total(table, options):
        return jnp.sum(jnp.sin(embedding_lookup(table, tokens, options)))

    value, gradient = jax.jit(jax.value_and_grad(lambda t: total(t, options)))(sharded(table, mesh))
    expected, expected_gradient = jax.value_and_grad(lambda t: total(t, ModelOptions()))(table)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


def test_neither_the_embedding_nor_its_gradient_travels():
    mesh = make_mesh(1, 8)
    options = model_options(mesh, "float32")
    table = sharded(jnp.zeros((50, 16)), mesh)
    tokens = jnp.zeros((8, 3), int)
    loss = jax.grad(lambda table: jnp.sum(embedding_lookup(table, tokens, options) ** 2))
    program = jax.jit(loss, out_shardings=table.sharding).lower(table).compile().as_text()
    assert "all-to-all" in program
    assert "f32[50,16]" not in program


def test_the_gradient_of_a_gathered_weight_takes_the_sharding_of_the_weight():
    """No output sharding is given: an update of the weight is all that the compiler knows.

    Over `data` the devices then sum only the part of the gradient that they keep. If the gradient
    had the constraint of the gathered weight, they would sum all of it over all devices.
    """
    mesh = make_mesh(2, 4)
    options = model_options(mesh, "float32")
    weight = sharded(jax.random.normal(jax.random.key(0), (16, 32)), mesh)
    x = jax.device_put(jax.random.normal(jax.random.key(1), (8, 16)), batch_sharding(mesh))

    def update(weight, x, options):
        gradient = jax.grad(lambda w: jnp.sum(jnp.sin(x @ all_gather(w, options))))(weight)
        return weight - 0.1 * gradient

    compiled = jax.jit(lambda w, x: update(w, x, options)).lower(weight, x).compile()
    assert compiled.output_shardings.is_equivalent_to(weight.sharding, weight.ndim)
    program = compiled.as_text()
    assert len(re.findall(r" all-gather(?:-start)?\(", program)) == 1
    shapes = re.findall(r"= f32\[([\d,]+)\]\S* (?:all-reduce|reduce-scatter)(?:-start)?\(", program)
    sizes = [np.prod([int(n) for n in shape.split(",")]) for shape in shapes]
    assert min(sizes) == weight.size // 4
    expected = update(jnp.asarray(np.asarray(weight)), np.asarray(x), ModelOptions())
    np.testing.assert_allclose(compiled(weight, x), expected, rtol=1e-5, atol=1e-6)


def test_along_the_tensor_axis_a_weight_stays_sharded():
    mesh = make_mesh(1, 2, 4)
    options = model_options(mesh, "float32")
    weight = jax.device_put(jnp.ones((16, 32)), NamedSharding(mesh, P("fsdp", "tensor")))
    used = jax.jit(lambda w: all_gather(w, options, tensor_dim=1))(weight)
    assert used.sharding.spec == P(None, "tensor")


def test_a_layer_on_a_tensor_axis_adds_up_and_gathers_nothing_of_its_activations():
    """fc1 is column parallel and fc2 row parallel, so one sum over the tensor axis is enough."""
    mesh = make_mesh(2, 1, 4)
    options = model_options(mesh, "float32")
    mlp = MLP(16, 64, options)
    x = jax.device_put(jnp.ones((2, 5, 16)), batch_sharding(mesh))
    params = mlp.init(jax.random.key(0), x)["params"]
    named = {"layers": {"mlp": jax.tree.map(lambda leaf: leaf[None], params)}}
    params_on_mesh = jax.device_put(named, tree_shardings(named, RULES, mesh))

    def run(named, x):
        return mlp.apply({"params": jax.tree.map(lambda leaf: leaf[0], named["layers"]["mlp"])}, x)

    program = jax.jit(run).lower(params_on_mesh, x).compile().as_text()
    assert len(re.findall(r" all-reduce(?:-start)?\(", program)) == 1
    assert "all-gather" not in program and "all-to-all" not in program
    whole = MLP(16, 64, ModelOptions()).apply({"params": params}, x)
    np.testing.assert_allclose(jax.jit(run)(params_on_mesh, x), whole, rtol=1e-5, atol=1e-6)


def test_without_a_mesh_nothing_is_done():
    weight = jnp.ones((4, 4))
    assert all_gather(weight, ModelOptions()) is weight
