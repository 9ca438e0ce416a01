"""What the chunked loss costs, read from the compiled program; nothing here is run."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from support import loss_batch

from fastwhisper_jax.losses.askd import askd_losses
from fastwhisper_jax.losses.chunked import LogitFactors

COLLECTIVE = re.compile(
    r"= \S.* (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(-start)?\("
)


def _shapes(rows, length, width, vocabulary):
    """The student's states and embedding, the other models, the labels and their mask."""
    states = jax.ShapeDtypeStruct((rows, length, width), jnp.float32)
    embedding = jax.ShapeDtypeStruct((vocabulary, width), jnp.float32)
    labels = jax.ShapeDtypeStruct((rows, length), jnp.int32)
    mask = jax.ShapeDtypeStruct((rows, length), jnp.float32)
    factors = LogitFactors(states, embedding)
    return states, embedding, (factors, factors), labels, mask


def _models(states, embedding, others, with_self_teacher):
    teacher, self_teacher = others
    student = LogitFactors(states, embedding)
    return loss_batch.Models(student, teacher, self_teacher if with_self_teacher else None)


def _chunked(with_self_teacher=False, chunk_tokens=256, **settings):
    def loss(states, embedding, others, labels, mask):
        models = _models(states, embedding, others, with_self_teacher)
        return loss_batch.batch_sums(
            models, labels, mask, chunk_tokens=chunk_tokens, **settings
        ).loss

    return loss


def _naive(with_self_teacher=False, **settings):
    def loss(states, embedding, others, labels, mask):
        models = _models(states, embedding, others, with_self_teacher)
        logits = map(loss_batch.logits_of, models)
        return jnp.sum(mask * askd_losses(*logits, labels, loss_batch.WEIGHTS, **settings))

    return loss


def _compile(function, shapes, **jit_settings):
    return jax.jit(function, **jit_settings).lower(*shapes).compile()


def _flops(function, shapes):
    return _compile(function, shapes).cost_analysis()["flops"]


@pytest.mark.parametrize("with_self_teacher", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_gradient_needs_at_most_a_fifth_of_the_naive_ones_memory(temperature, with_self_teacher):
    shapes = _shapes(8, 512, 64, 51865)
    settings = {"temperature": temperature, "with_self_teacher": with_self_teacher}
    ours, naive = (
        _compile(jax.grad(make(**settings), argnums=(0, 1)), shapes)
        .memory_analysis()
        .temp_size_in_bytes
        for make in (_chunked, _naive)
    )
    assert naive > 4096 * 51865 * 4
    assert ours <= 0.2 * naive


def test_nothing_of_the_size_of_all_logits_is_ever_held():
    shapes = _shapes(8, 512, 64, 51865)
    text = _compile(jax.grad(_chunked(), argnums=(0, 1)), shapes).as_text()
    sizes = [
        np.prod([int(n) for n in dims.split(",")]) for dims in re.findall(r"f32\[([\d,]+)\]", text)
    ]
    assert max(sizes) <= 256 * 51865


def test_every_product_is_computed_once():
    # One chunk, so that no loop hides flops: 4 products of 2 T D V flops each.
    rows, length, width, vocabulary = 2, 64, 256, 2000
    gradient = jax.grad(_chunked(chunk_tokens=rows * length), argnums=(0, 1))
    flops = _flops(gradient, _shapes(rows, length, width, vocabulary))
    products = flops / (2 * rows * length * width * vocabulary)
    assert 4 <= products <= 4.3


@pytest.mark.parametrize(
    "length,chunk_tokens,projected",
    [(7, 200, 7), (48, 64, 24), (13, 10, 5), (13, 11, 5), (3, 1, 1)],
)
def test_chunks_hold_as_little_padding_as_can_be(length, chunk_tokens, projected):
    gradient = jax.grad(_chunked(chunk_tokens=chunk_tokens))
    program = str(jax.make_jaxpr(gradient)(*_shapes(2, length, 16, 50)))
    assert f"f32[{2 * projected},50] = dot_general" in program


@pytest.mark.parametrize("is_sharded", [False, True])
def test_products_that_nobody_asked_for_are_not_in_the_program(is_sharded):
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2], axis_types=(AxisType.Auto,))
    loss = _chunked(**({"mesh": mesh, "batch_axes": ("data",)} if is_sharded else {}))

    def frozen(states, embedding, *rest):
        return loss(states, jax.lax.stop_gradient(embedding), *rest)

    for function, products in (
        (jax.grad(loss, argnums=(0, 1)), 4),
        (jax.grad(loss), 3),
        (jax.grad(loss, argnums=1), 3),
        (jax.grad(frozen, argnums=(0, 1)), 3),
        (jax.jit(jax.grad(jax.jit(frozen), argnums=(0, 1))), 3),
        (loss, 2),
    ):
        program = str(jax.make_jaxpr(function)(*_shapes(2, 8, 16, 50)))
        assert program.count("dot_general") == products


@pytest.mark.parametrize("chunk_tokens", [32, 128, 256])
def test_a_device_of_four_has_the_flops_of_one_with_a_quarter_of_the_batch(chunk_tokens):
    compiled = _compile_on_four_devices(chunk_tokens)
    alone = _flops(
        jax.grad(_chunked(chunk_tokens=chunk_tokens), argnums=(0, 1)), _shapes(2, 64, 128, 2001)
    )
    np.testing.assert_allclose(compiled.cost_analysis()["flops"], alone, rtol=0.01)


def test_devices_meet_after_the_loop_and_never_inside():
    text = _compile_on_four_devices(chunk_tokens=32).as_text()
    inside, outside = _collectives(text)
    assert " while(" in text
    assert not inside
    assert any("all-reduce" in line for line in outside)
    # Each device's gradient of the embedding crosses the network once, and nothing else is large.
    large = [line for line in outside if re.search(r"f32\[2001,\d+\]", line.split("(")[0])]
    assert sum("all-reduce" in line or "reduce-scatter" in line for line in large) == 1


@pytest.mark.parametrize("devices", [1, 2])
def test_an_axis_of_one_device_costs_nothing(devices):
    """XLA on a CPU runs a sum over one device as a copy, of the embedding's whole gradient."""
    sizes, axes = (devices, 1, 1), ("data", "fsdp", "tensor")
    mesh = jax.make_mesh(
        sizes, axes, devices=jax.devices()[:devices], axis_types=(AxisType.Auto,) * 3
    )
    on_mesh = {
        "mesh": mesh,
        "batch_axes": ("data", "fsdp"),
        "token_axis": "tensor",
        "width_axes": ("tensor", "fsdp"),
    }
    gradient = jax.grad(_chunked(**on_mesh), argnums=(0, 1))
    collectives = sum(_collectives(_compile(gradient, _shapes(2, 8, 16, 50)).as_text()), [])
    assert bool(collectives) == (devices > 1)
    assert not any("{0}" in line.split("replica_groups=")[1] for line in collectives)


def test_a_collective_inside_a_loop_would_be_seen():
    mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4], axis_types=(AxisType.Auto,))

    def total(x):
        return jax.lax.scan(lambda c, row: (c + jax.lax.psum(row * c, "data"), None), x[0] * 0, x)[
            0
        ]

    sharded = jax.shard_map(total, mesh=mesh, in_specs=P(None, "data"), out_specs=P("data"))
    inside, _ = _collectives(_compile(sharded, [jnp.ones((5, 8))]).as_text())
    assert inside


def _compile_on_four_devices(chunk_tokens):
    devices = jax.devices()[:4]
    mesh = jax.make_mesh((2, 2), ("data", "fsdp"), devices=devices, axis_types=(AxisType.Auto,) * 2)
    axes = ("data", "fsdp")
    rows, by_width = NamedSharding(mesh, P(axes)), NamedSharding(mesh, P(None, "fsdp"))
    others = LogitFactors(rows, by_width)
    loss = _chunked(chunk_tokens=chunk_tokens, mesh=mesh, batch_axes=axes)
    return _compile(
        jax.grad(loss, argnums=(0, 1)),
        _shapes(8, 64, 128, 2001),
        in_shardings=(rows, by_width, (others, others), rows, rows),
        out_shardings=(rows, by_width),
    )


def _collectives(hlo: str) -> tuple[list[str], list[str]]:
    """Collective instructions of a compiled program: inside its loops, and outside."""
    bodies: dict[str, list[str]] = {}
    for line in hlo.splitlines():
        header = re.match(r"(?:ENTRY )?%?([\w.-]+) \(.*\{$", line)
        if header:
            instructions = bodies.setdefault(header[1], [])
        elif line.startswith("  "):
            instructions.append(line)
    looped: set[str] = set()
    pending = re.findall(r"\b(?:body|condition)=%?([\w.-]+)", hlo)
    while pending:
        name = pending.pop()
        if name not in looped:
            looped.add(name)
            for line in bodies[name]:
                pending += [
                    called for called in re.findall(r"%([\w.-]+)", line) if called in bodies
                ]
    found = {
        is_looped: [
            line
            for name, lines in bodies.items()
            if (name in looped) == is_looped
            for line in lines
            if COLLECTIVE.search(line)
        ]
        for is_looped in (True, False)
    }
    return found[True], found[False]
