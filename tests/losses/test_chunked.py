"""The chunked loss against the definition: what it computes. What it costs: test_chunked_cost."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.losses.askd import Weights, askd_losses
from fastwhisper_jax.losses.chunked import distillation_sums

WEIGHTS = Weights(0.3, 0.5, 0.2)
NAMES = [
    f"{who}_{what}" for who in ("student", "teacher", "self") for what in ("states", "embedding")
]


def _without(arrays, *who):
    return {name: None if name.split("_")[0] in who else x for name, x in arrays.items()}


def _naive(arrays, labels, label_mask, weights=WEIGHTS, **settings):
    logits = [
        None
        if arrays[f"{who}_states"] is None
        else arrays[f"{who}_states"] @ arrays[f"{who}_embedding"].T
        for who in ("student", "teacher", "self")
    ]
    return jnp.sum(label_mask * askd_losses(*logits, labels, weights, **settings))


def _loss(arrays, weights=WEIGHTS, chunk_tokens=256, **rest):
    return distillation_sums(**arrays, weights=weights, chunk_tokens=chunk_tokens, **rest).loss


def _value_and_grad(loss, arrays, tokens, **settings):
    """Compiled: op by op, each shape would be compiled for itself."""
    run = jax.jit(lambda a, t: jax.value_and_grad(loss)(a, **t, **settings))
    return run(arrays, tokens)


def _grad(loss, arrays, tokens, **settings):
    return _value_and_grad(loss, arrays, tokens, **settings)[1]


def _assert_gradients_close(ours, expected, tolerance=1e-5):
    for name, gradient in expected.items():
        if gradient is not None:
            scale = max(float(jnp.max(jnp.abs(gradient))), 1e-30)
            np.testing.assert_allclose(ours[name] / scale, gradient / scale, atol=tolerance)


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
    make_batch, rows, length, width, vocabulary, chunk_tokens, temperature, adaptive
):
    arrays, tokens = make_batch(rows, length, width, vocabulary, teacher_width=width + 3)
    settings = {"temperature": temperature, "adaptive": adaptive}
    expected, expected_gradient = _value_and_grad(_naive, arrays, tokens, **settings)
    settings["chunk_tokens"] = chunk_tokens
    value, gradient = _value_and_grad(_loss, arrays, tokens, **settings)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    _assert_gradients_close(gradient, expected_gradient)
    undifferentiated = jax.jit(lambda a, t: _loss(a, **t, **settings))(arrays, tokens)
    np.testing.assert_allclose(undifferentiated, expected, rtol=1e-6)


@pytest.mark.parametrize("missing", [("teacher",), ("self",), ("teacher", "self")])
def test_models_that_are_not_run_leave_their_term_out(make_batch, missing):
    arrays, tokens = make_batch(2, 6, 8, 23)
    arrays = _without(arrays, *missing)
    expected, expected_gradient = _value_and_grad(_naive, arrays, tokens, adaptive=True)
    value, gradient = _value_and_grad(_loss, arrays, tokens, adaptive=True, chunk_tokens=8)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    _assert_gradients_close(gradient, expected_gradient)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_sums_are_the_float64_formulas(make_batch, reference, temperature):
    arrays, tokens = make_batch(3, 9, 8, 51)
    sums = distillation_sums(
        **arrays, **tokens, weights=WEIGHTS, temperature=temperature, chunk_tokens=8
    )
    exact = {name: np.asarray(x, np.float64) for name, x in arrays.items()}
    logits = [
        exact[f"{w}_states"] @ exact[f"{w}_embedding"].T for w in ("student", "teacher", "self")
    ]
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


def test_mask_equals_slicing(make_batch):
    arrays, tokens = make_batch(2, 9, 8, 23)
    tokens["label_mask"] = jnp.ones((2, 9)).at[:, 5:].set(0.0)
    short = {name: x[:, :5] if x.ndim == 3 else x for name, x in arrays.items()}
    short_tokens = {name: x[:, :5] for name, x in tokens.items()}
    masked, masked_gradient = _value_and_grad(_loss, arrays, tokens, chunk_tokens=8)
    sliced, sliced_gradient = _value_and_grad(_loss, short, short_tokens, chunk_tokens=8)
    np.testing.assert_allclose(masked, sliced, rtol=1e-6)
    ours = masked_gradient["student_states"]
    np.testing.assert_allclose(ours[:, :5], sliced_gradient["student_states"], atol=1e-6)
    assert not np.any(ours[:, 5:])
    np.testing.assert_allclose(
        masked_gradient["student_embedding"], sliced_gradient["student_embedding"], atol=1e-6
    )


def test_labels_of_masked_tokens_are_not_read(make_batch):
    arrays, tokens = make_batch(2, 9, 8, 23)
    strange = jnp.where(tokens["label_mask"] > 0, tokens["labels"], -100)
    value, gradient = _value_and_grad(_loss, arrays, tokens)
    other, other_gradient = _value_and_grad(_loss, arrays, {**tokens, "labels": strange})
    assert value == other
    jax.tree.map(np.testing.assert_array_equal, gradient, other_gradient)


def test_rows_without_a_target_add_nothing(make_batch):
    arrays, tokens = make_batch(4, 6, 8, 23)
    tokens["label_mask"] = tokens["label_mask"].at[2:].set(0.0)
    kept = {name: x[:2] if x.ndim == 3 else x for name, x in arrays.items()}
    value, gradient = _value_and_grad(_loss, arrays, tokens, chunk_tokens=8)
    expected = _loss(kept, **{name: x[:2] for name, x in tokens.items()}, chunk_tokens=8)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert not np.any(gradient["student_states"][2:])


def test_a_batch_without_a_target_is_zero_everywhere(make_batch):
    arrays, tokens = make_batch(2, 6, 8, 23)
    tokens["label_mask"] = jnp.zeros((2, 6))
    sums = distillation_sums(**arrays, **tokens, weights=WEIGHTS, chunk_tokens=8)
    assert all(value == 0.0 for value in dataclasses.astuple(sums))
    assert not any(np.any(g) for g in _grad(_loss, arrays, tokens).values())


def test_everything_but_the_student_gets_exactly_zero_gradient(make_batch):
    arrays, tokens = make_batch(2, 6, 8, 23)
    gradient = _grad(_loss, arrays, tokens, temperature=2.0, chunk_tokens=8)
    for name in NAMES:
        assert np.any(gradient[name]) == name.startswith("student"), name
    by_weights = jax.grad(lambda w: _loss(arrays, w, **tokens))(Weights(0.3, 0.5, 0.2))
    assert by_weights == Weights(0.0, 0.0, 0.0)


@pytest.mark.parametrize("name", ["ce", "kl_teacher", "kl_self", "correct", "count"])
def test_only_the_loss_carries_a_gradient(make_batch, name):
    arrays, tokens = make_batch(2, 6, 8, 23)

    def total(arrays):
        sums = distillation_sums(**arrays, **tokens, weights=WEIGHTS, chunk_tokens=8)
        return getattr(sums, name)

    gradient = jax.grad(total)(arrays)
    assert not any(np.any(g) for g in gradient.values())


def test_gradient_scales_with_what_the_caller_does_to_the_loss(make_batch):
    arrays, tokens = make_batch(2, 6, 8, 23)

    def mean(arrays):
        sums = distillation_sums(**arrays, **tokens, weights=WEIGHTS, chunk_tokens=8)
        return sums.loss / sums.count

    plain = _grad(_loss, arrays, tokens, chunk_tokens=8)
    count = jnp.sum(tokens["label_mask"])
    _assert_gradients_close(jax.grad(mean)(arrays), jax.tree.map(lambda g: g / count, plain), 1e-6)


@pytest.mark.parametrize("name", ["student_states", "student_embedding"])
def test_either_gradient_alone_is_the_same_as_with_the_other(make_batch, name):
    arrays, tokens = make_batch(2, 6, 8, 23)
    both = _grad(_loss, arrays, tokens, chunk_tokens=8)
    alone = jax.grad(lambda x: _loss({**arrays, name: x}, **tokens, chunk_tokens=8))(arrays[name])
    np.testing.assert_allclose(alone, both[name], atol=1e-6)


def test_a_tied_embedding_gets_the_gradient_of_both_its_uses(make_batch):
    arrays, tokens = make_batch(2, 6, 8, 23)

    def tied(loss):
        def of_embedding(embedding):
            states = jnp.tanh(embedding[tokens["labels"]])
            student = {"student_states": states, "student_embedding": embedding}
            return loss({**arrays, **student}, **tokens)

        return jax.grad(of_embedding)(arrays["student_embedding"])

    ours = tied(lambda a, **t: _loss(a, **t, chunk_tokens=8))
    np.testing.assert_allclose(ours, tied(_naive), atol=1e-5)


def test_gradients_inside_a_scan_over_micro_batches_add_up(make_batch):
    arrays, tokens = make_batch(4, 6, 8, 23)

    @jax.jit
    def accumulated(arrays, tokens):
        split = lambda x: x.reshape(2, 2, *x.shape[1:])  # noqa: E731
        by_row = {name: split(x) for name, x in arrays.items() if x.ndim == 3}
        fixed = {name: x for name, x in arrays.items() if x.ndim == 2}

        def add(total, micro):
            rows, micro_tokens = micro
            gradient = jax.grad(lambda f: _loss({**rows, **f}, **micro_tokens, chunk_tokens=8))(
                fixed
            )
            return jax.tree.map(jnp.add, total, gradient), None

        zeros = jax.tree.map(jnp.zeros_like, fixed)
        return jax.lax.scan(add, zeros, (by_row, jax.tree.map(split, tokens)))[0]

    expected = _grad(_loss, arrays, tokens, chunk_tokens=8)["student_embedding"]
    np.testing.assert_allclose(
        accumulated(arrays, tokens)["student_embedding"], expected, atol=1e-5
    )


def test_bfloat16_states_are_reduced_in_float32_and_get_bfloat16_gradients(make_batch):
    arrays, tokens = make_batch(2, 7, 16, 200)
    rounded = {name: x.astype(jnp.bfloat16) for name, x in arrays.items()}
    exact = {name: x.astype(jnp.float32) for name, x in rounded.items()}
    mixed = {name: x if name.endswith("states") else exact[name] for name, x in rounded.items()}
    expected, expected_gradient = _value_and_grad(_naive, exact, tokens, temperature=2.0)
    value, gradient = _value_and_grad(_loss, mixed, tokens, temperature=2.0, chunk_tokens=8)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert value.dtype == jnp.float32
    assert gradient["student_states"].dtype == jnp.bfloat16
    assert gradient["student_embedding"].dtype == jnp.float32
    widened = {name: x.astype(jnp.float32) for name, x in gradient.items()}
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
def test_many_devices_compute_what_one_does(make_batch, shape, batch_axes, token_axis, width_axes):
    mesh = jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    arrays, tokens = make_batch(8, 12, 8, 51)
    settings = {"temperature": 2.0, "adaptive": True, "chunk_tokens": 6}

    def sums_and_gradient(arrays, tokens, **where):
        def loss(arrays):
            sums = distillation_sums(**arrays, **tokens, weights=WEIGHTS, **settings, **where)
            return sums.loss, sums

        return jax.value_and_grad(loss, has_aux=True)(arrays)

    (_, expected), expected_gradient = sums_and_gradient(arrays, tokens)
    rows = NamedSharding(mesh, P(batch_axes))
    by_width = NamedSharding(mesh, P(None, width_axes or None))
    placed = {
        name: jax.device_put(x, rows if x.ndim == 3 else by_width) for name, x in arrays.items()
    }
    (_, sums), gradient = jax.jit(
        lambda a, t: sums_and_gradient(
            a, t, mesh=mesh, batch_axes=batch_axes, token_axis=token_axis, width_axes=width_axes
        )
    )(placed, jax.device_put(tokens, rows))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), sums, expected)
    _assert_gradients_close(gradient, expected_gradient, 1e-6)


@pytest.mark.parametrize(
    "change,match",
    [
        ({"teacher_embedding": None}, "teacher_states was given without teacher_embedding"),
        (
            {"self_teacher_states": None},
            "self_teacher_embedding was given without self_teacher_states",
        ),
        ({"teacher_embedding": jnp.ones((24, 8))}, "teacher_embedding has 24 .* student's 23"),
        ({"teacher_states": jnp.ones((2, 5, 8))}, r"teacher_states have shape \(2, 5, 8\)"),
        ({"student_embedding": jnp.ones((23, 9))}, "student_states have shape"),
        ({"label_mask": jnp.ones((2, 5))}, r"label_mask has shape \(2, 5\), labels \(2, 6\)"),
        ({"labels": jnp.ones((6,), jnp.int32)}, r"must be \(B, T\)"),
        ({"temperature": 0.0}, "temperature=0.0 must be above 0"),
        ({"chunk_tokens": 0}, "chunk_tokens=0 must be at least 1"),
        ({"batch_axes": ("data",)}, "must be axes of the mesh"),
        ({"token_axis": "tensor"}, "token_axis=.* must be axes of the mesh"),
    ],
)
def test_what_does_not_fit_is_refused(make_batch, change, match):
    arrays, tokens = make_batch(2, 6, 8, 23)
    with pytest.raises(InputError, match=match):
        settings = {"weights": WEIGHTS, "chunk_tokens": 8}
        distillation_sums(**{**arrays, **tokens, **settings, **change})


def test_rows_that_do_not_divide_over_the_devices_are_refused(make_batch):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    arrays, tokens = make_batch(6, 4, 8, 23)
    with pytest.raises(InputError, match="a batch of 6 rows does not divide over 8 devices"):
        _loss(arrays, **tokens, mesh=mesh, batch_axes=("data",))
    with pytest.raises(InputError, match="a batch of 4 tokens does not divide over 8 devices"):
        _loss(arrays, **tokens, mesh=mesh, token_axis="data")
