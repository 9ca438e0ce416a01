"""The chunked loss against the definition: what it computes. What it costs: test_chunked_cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from support.loss_batch import WEIGHTS, batch_sums, logits_of, make_batch, reference

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.losses.askd import Weights, askd_losses
from fastwhisper_jax.losses.chunked import LogitFactors


def _naive(models, labels, label_mask, **settings):
    logits = [logits_of(factors) for factors in models]
    return jnp.sum(label_mask * askd_losses(*logits, labels, WEIGHTS, **settings))


def _loss(models, **rest):
    return batch_sums(models, **rest).loss


def _value_and_grad(loss, models, tokens, **settings):
    """Compiled: op by op, each shape would be compiled for itself."""
    run = jax.jit(lambda m, t: jax.value_and_grad(loss)(m, **t, **settings))
    return run(models, tokens)


def _grad(loss, models, tokens, **settings):
    return _value_and_grad(loss, models, tokens, **settings)[1]


def _assert_gradients_close(ours, expected, tolerance=1e-5):
    def check(gradient, wanted):
        scale = max(float(jnp.max(jnp.abs(wanted))), 1e-30)
        np.testing.assert_allclose(gradient / scale, wanted / scale, atol=tolerance)

    jax.tree.map(check, ours, expected)


@pytest.mark.parametrize(
    "rows,length,width,vocabulary,chunk_tokens",
    [
        (3, 8, 8, 51, 12),
        (3, 7, 8, 51, 11),
        (3, 7, 8, 51, 21),
        (3, 7, 8, 51, 300),
        (3, 7, 8, 51, 1),
        (2, 1, 8, 33, 256),
        (1, 5, 16, 64, 2),
        (2, 5, 4, 51865, 4),
        (5, 260, 4, 17, 256),
    ],
)
@pytest.mark.parametrize("temperature,adaptive", [(1.0, False), (2.0, True)])
def test_value_and_gradient_are_the_definitions(
    rows, length, width, vocabulary, chunk_tokens, temperature, adaptive
):
    models, tokens = make_batch(rows, length, width, vocabulary, teacher_width=width + 3)
    settings = {"temperature": temperature, "adaptive": adaptive}
    expected, expected_gradient = _value_and_grad(_naive, models, tokens, **settings)
    settings["chunk_tokens"] = chunk_tokens
    value, gradient = _value_and_grad(_loss, models, tokens, **settings)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    _assert_gradients_close(gradient, expected_gradient)
    undifferentiated = jax.jit(lambda m, t: _loss(m, **t, **settings))(models, tokens)
    np.testing.assert_allclose(undifferentiated, expected, rtol=1e-6)


@pytest.mark.parametrize("missing", [("teacher",), ("self_teacher",), ("teacher", "self_teacher")])
def test_models_that_are_not_run_leave_their_term_out(missing):
    models, tokens = make_batch(2, 6, 8, 23)
    models = models._replace(**dict.fromkeys(missing))
    expected, expected_gradient = _value_and_grad(_naive, models, tokens, adaptive=True)
    value, gradient = _value_and_grad(_loss, models, tokens, adaptive=True)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    _assert_gradients_close(gradient, expected_gradient)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_sums_are_the_float64_formulas(temperature):
    models, tokens = make_batch(3, 9, 8, 51)
    sums = batch_sums(models, **tokens, temperature=temperature)
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), models)
    logits = [logits_of(factors) for factors in exact]
    labels, mask = np.asarray(tokens["labels"]), np.asarray(tokens["label_mask"])
    expected = reference(*logits, labels, WEIGHTS, temperature)
    for name in ("loss", "ce", "kl_teacher", "kl_self"):
        np.testing.assert_allclose(
            getattr(sums, name), np.sum(mask * getattr(expected, name)), rtol=1e-6, err_msg=name
        )
    assert sums.count == mask.sum()
    assert sums.correct == np.sum(mask * (logits[0].argmax(-1) == labels))
    assert sums.teacher_correct == np.sum(mask * (logits[1].argmax(-1) == labels))
    total = WEIGHTS.ce * sums.ce + WEIGHTS.teacher * sums.kl_teacher
    np.testing.assert_allclose(sums.loss, total + WEIGHTS.self_teacher * sums.kl_self, rtol=1e-6)


def _states_sliced(models, *index):
    return type(models)(*(f._replace(states=f.states[index]) for f in models))


def test_mask_equals_slicing():
    models, tokens = make_batch(2, 9, 8, 23)
    tokens["label_mask"] = jnp.ones((2, 9)).at[:, 5:].set(0.0)
    short = _states_sliced(models, slice(None), slice(5))
    short_tokens = {name: x[:, :5] for name, x in tokens.items()}
    masked, masked_gradient = _value_and_grad(_loss, models, tokens)
    sliced, sliced_gradient = _value_and_grad(_loss, short, short_tokens)
    np.testing.assert_allclose(masked, sliced, rtol=1e-6)
    ours, expected = masked_gradient.student, sliced_gradient.student
    np.testing.assert_allclose(ours.states[:, :5], expected.states, atol=1e-6)
    assert not np.any(ours.states[:, 5:])
    np.testing.assert_allclose(ours.embedding, expected.embedding, atol=1e-6)


def test_labels_of_masked_tokens_are_not_read():
    models, tokens = make_batch(2, 9, 8, 23)
    strange = jnp.where(tokens["label_mask"] > 0, tokens["labels"], -100)
    value, gradient = _value_and_grad(_loss, models, tokens)
    other, other_gradient = _value_and_grad(_loss, models, {**tokens, "labels": strange})
    assert value == other
    jax.tree.map(np.testing.assert_array_equal, gradient, other_gradient)


def test_rows_without_a_target_add_nothing():
    models, tokens = make_batch(4, 6, 8, 23)
    tokens["label_mask"] = tokens["label_mask"].at[2:].set(0.0)
    value, gradient = _value_and_grad(_loss, models, tokens)
    kept_tokens = {name: x[:2] for name, x in tokens.items()}
    expected = _loss(_states_sliced(models, slice(2)), **kept_tokens)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert not np.any(gradient.student.states[2:])


def test_a_batch_without_a_target_is_zero_everywhere():
    models, tokens = make_batch(2, 6, 8, 23)
    tokens["label_mask"] = jnp.zeros((2, 6))
    assert all(value == 0.0 for value in jax.tree.leaves(batch_sums(models, **tokens)))
    assert not any(np.any(g) for g in jax.tree.leaves(_grad(_loss, models, tokens)))


def test_everything_but_the_student_gets_exactly_zero_gradient():
    models, tokens = make_batch(2, 6, 8, 23)
    gradient = _grad(_loss, models, tokens, temperature=2.0)
    assert all(np.any(g) for g in gradient.student)
    assert not any(np.any(g) for g in (*gradient.teacher, *gradient.self_teacher))
    by_weights = jax.grad(lambda w: _loss(models, **tokens, weights=w))(WEIGHTS)
    assert by_weights == Weights(0.0, 0.0, 0.0)


@pytest.mark.parametrize("name", ["ce", "kl_teacher", "kl_self", "correct", "count"])
def test_only_the_loss_carries_a_gradient(name):
    models, tokens = make_batch(2, 6, 8, 23)
    gradient = jax.grad(lambda m: getattr(batch_sums(m, **tokens), name))(models)
    assert not any(np.any(g) for g in jax.tree.leaves(gradient))


def test_gradient_scales_with_what_the_caller_does_to_the_loss():
    models, tokens = make_batch(2, 6, 8, 23)

    def mean(models):
        sums = batch_sums(models, **tokens)
        return sums.loss / sums.count

    plain = _grad(_loss, models, tokens)
    count = jnp.sum(tokens["label_mask"])
    _assert_gradients_close(jax.grad(mean)(models), jax.tree.map(lambda g: g / count, plain), 1e-6)


@pytest.mark.parametrize("name", ["states", "embedding"])
def test_either_gradient_alone_is_the_same_as_with_the_other(name):
    models, tokens = make_batch(2, 6, 8, 23)

    def loss(array):
        return _loss(models._replace(student=models.student._replace(**{name: array})), **tokens)

    alone = jax.grad(loss)(getattr(models.student, name))
    both = _grad(_loss, models, tokens)
    np.testing.assert_allclose(alone, getattr(both.student, name), atol=1e-6)


def test_a_tied_embedding_gets_the_gradient_of_both_its_uses():
    models, tokens = make_batch(2, 6, 8, 23)

    def tied(loss):
        def of_embedding(embedding):
            student = LogitFactors(jnp.tanh(embedding[tokens["labels"]]), embedding)
            return loss(models._replace(student=student), **tokens)

        return jax.grad(of_embedding)(models.student.embedding)

    np.testing.assert_allclose(tied(_loss), tied(_naive), atol=1e-5)


def test_gradients_inside_a_scan_over_micro_batches_add_up():
    models, tokens = make_batch(4, 6, 8, 23)

    @jax.jit
    def accumulated(models, tokens):
        def split(x):
            return x.reshape(2, 2, *x.shape[1:])

        states = [split(factors.states) for factors in models]
        embeddings = [factors.embedding for factors in models]

        def loss(embeddings, states, micro_tokens):
            factors = map(LogitFactors, states, embeddings)
            return _loss(type(models)(*factors), **micro_tokens)

        def add(total, micro):
            return jax.tree.map(jnp.add, total, jax.grad(loss)(embeddings, *micro)), None

        zeros = jax.tree.map(jnp.zeros_like, embeddings)
        return jax.lax.scan(add, zeros, (states, jax.tree.map(split, tokens)))[0]

    expected = _grad(_loss, models, tokens).student.embedding
    np.testing.assert_allclose(accumulated(models, tokens)[0], expected, atol=1e-5)


def test_bfloat16_states_are_reduced_in_float32_and_get_bfloat16_gradients():
    models, tokens = make_batch(2, 7, 16, 200)
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), models)
    exact = jax.tree.map(lambda x: x.astype(jnp.float32), rounded)
    mixed = type(models)(
        *(r._replace(embedding=e.embedding) for r, e in zip(rounded, exact, strict=True))
    )
    expected, expected_gradient = _value_and_grad(_naive, exact, tokens, temperature=2.0)
    value, gradient = _value_and_grad(_loss, mixed, tokens, temperature=2.0)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert value.dtype == jnp.float32
    assert gradient.student.states.dtype == jnp.bfloat16
    assert gradient.student.embedding.dtype == jnp.float32
    widened = jax.tree.map(lambda x: x.astype(jnp.float32), gradient)
    _assert_gradients_close(widened, expected_gradient, tolerance=1e-2)


@pytest.mark.parametrize(
    "shape, batch_axes, token_axis, width_axes",
    [
        ((8, 1, 1), ("data", "fsdp"), None, ()),
        ((2, 4, 1), ("data", "fsdp"), None, ("fsdp",)),
        ((2, 4, 1), ("data",), None, ()),
        ((2, 2, 2), ("data", "fsdp"), "tensor", ("tensor", "fsdp")),
        ((1, 2, 4), ("data", "fsdp"), "tensor", ()),
    ],
)
def test_many_devices_compute_what_one_does(shape, batch_axes, token_axis, width_axes):
    mesh = jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    models, tokens = make_batch(8, 12, 8, 51)
    settings = {"temperature": 2.0, "adaptive": True, "chunk_tokens": 6}

    def sums_and_gradient(models, tokens, **where):
        def loss(models):
            sums = batch_sums(models, **tokens, **settings, **where)
            return sums.loss, sums

        return jax.value_and_grad(loss, has_aux=True)(models)

    (_, expected), expected_gradient = sums_and_gradient(models, tokens)
    rows = NamedSharding(mesh, P(batch_axes))
    by_width = NamedSharding(mesh, P(None, width_axes or None))
    sharded = jax.tree.map(lambda x: jax.device_put(x, rows if x.ndim == 3 else by_width), models)
    (_, sums), gradient = jax.jit(
        lambda m, t: sums_and_gradient(
            m, t, mesh=mesh, batch_axes=batch_axes, token_axis=token_axis, width_axes=width_axes
        )
    )(sharded, jax.device_put(tokens, rows))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), sums, expected)
    _assert_gradients_close(gradient, expected_gradient, 1e-6)


@pytest.mark.parametrize(
    "name,change,match",
    [
        ("teacher", {"embedding": jnp.ones((24, 8))}, "teacher.embedding has 24 .* student's 23"),
        ("teacher", {"states": jnp.ones((2, 5, 8))}, r"teacher.states have shape \(2, 5, 8\)"),
        ("self_teacher", {"states": jnp.ones((2, 6, 7))}, "self_teacher.states have shape"),
        ("student", {"embedding": jnp.ones((23, 9))}, "student.states have shape"),
    ],
)
def test_models_of_other_shapes_are_refused(name, change, match):
    models, tokens = make_batch(2, 6, 8, 23)
    models = models._replace(**{name: getattr(models, name)._replace(**change)})
    with pytest.raises(InputError, match=match):
        batch_sums(models, **tokens)


@pytest.mark.parametrize(
    "change,match",
    [
        ({"label_mask": jnp.ones((2, 5))}, r"label_mask has shape \(2, 5\), labels \(2, 6\)"),
        ({"labels": jnp.ones((6,), jnp.int32)}, r"must be \(B, T\)"),
        ({"temperature": 0.0}, "temperature=0.0 must be above 0"),
        ({"chunk_tokens": 0}, "chunk_tokens=0 must be at least 1"),
        ({"batch_axes": ("data",)}, "must be axes of the mesh"),
        ({"token_axis": "tensor"}, "token_axis=.* must be axes of the mesh"),
    ],
)
def test_targets_and_settings_that_do_not_fit_are_refused(change, match):
    models, tokens = make_batch(2, 6, 8, 23)
    with pytest.raises(InputError, match=match):
        batch_sums(models, **{**tokens, **change})


def test_rows_that_do_not_divide_over_the_devices_are_refused():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    models, tokens = make_batch(6, 4, 8, 23)
    with pytest.raises(InputError, match="a batch of 6 rows does not divide over 8 devices"):
        batch_sums(models, **tokens, mesh=mesh, batch_axes=("data",))
    with pytest.raises(InputError, match="a batch of 4 tokens does not divide over 8 devices"):
        batch_sums(models, **tokens, mesh=mesh, token_axis="data")
