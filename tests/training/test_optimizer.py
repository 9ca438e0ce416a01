"""The learning rate at every boundary, and what weight decay leaves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import tiny_run as tiny

from fastwhisper_jax.training.optimizer import decayed, learning_rate_schedule, make_optimizer

PEAK, END, WARMUP, TOTAL = 4e-4, 1e-4, 10, 110


def expected_rate(step, warmup, decay):
    """The formula of the docstring, in float64."""
    if step < warmup:
        return PEAK * (step + 1) / (warmup + 1)
    done = min((step - warmup) / (TOTAL - warmup), 1.0)
    left = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + np.cos(np.pi * done))}
    return END + (PEAK - END) * left[decay]


@pytest.mark.parametrize("decay", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, WARMUP])
def test_the_rate_is_right_at_every_boundary(warmup, decay):
    rate = learning_rate_schedule(PEAK, END, warmup, decay, TOTAL)
    boundaries = (0, warmup, TOTAL)
    steps = sorted({b + d for b in boundaries for d in (-1, 0, 1) if b + d >= 0})
    for step in steps:
        expected = expected_rate(step, warmup, decay)
        np.testing.assert_allclose(rate(jnp.int32(step)), expected, rtol=1e-5, err_msg=f"{step=}")


def test_no_update_is_made_at_rate_0_and_the_peak_is_reached():
    rate = learning_rate_schedule(PEAK, 0.0, WARMUP, "linear", TOTAL)
    rates = np.array([rate(jnp.int32(step)) for step in range(TOTAL)])
    assert rates.min() > 0
    assert rates.argmax() == WARMUP
    np.testing.assert_allclose(rates.max(), PEAK, rtol=1e-6)


@pytest.mark.parametrize("total, warmup", [(1, 0), (1, 1), (5, 5), (5, 8)])
def test_a_run_no_longer_than_its_warm_up_has_finite_rates(total, warmup):
    rate = learning_rate_schedule(PEAK, 0.0, warmup, "linear", total)
    rates = np.array([rate(jnp.int32(step)) for step in range(total)])
    assert np.isfinite(rates).all() and (rates > 0).all() and (rates <= PEAK * 1.00001).all()


def make(schedule=lambda step: 0.1, **changes):
    settings = {
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-8,
        "weight_decay": 0.5,
        "clip_norm": 1.0,
    }
    return make_optimizer(schedule, **settings | changes)


def test_biases_norms_and_positions_are_not_decayed():
    mask = decayed(tiny.random_params(tiny.STUDENT))
    for path, is_decayed in jax.tree_util.tree_flatten_with_path(mask)[0]:
        assert is_decayed == (path[-1].key in ("kernel", "embed_tokens")), path


def test_decay_without_a_gradient_shrinks_by_rate_times_decay():
    names = ("kernel", "embed_tokens", "bias", "scale", "positions")
    params = {name: jnp.full((2, 2), 3.0) for name in names}
    optimizer = make()
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    for name in names:
        expected = -0.1 * 0.5 * 3.0 if name in ("kernel", "embed_tokens") else 0.0
        np.testing.assert_allclose(updates[name], expected, rtol=1e-6)


def test_an_update_uses_the_rate_of_the_updates_completed_before_it():
    rate = learning_rate_schedule(PEAK, END, 3, "linear", 10)
    optimizer = make(rate, weight_decay=0.0)
    params = {"kernel": jnp.ones((2, 2))}
    state = optimizer.init(params)
    grads = {"kernel": jnp.full((2, 2), 0.1)}
    for step in range(6):
        updates, state = optimizer.update(grads, state, params)
        # Adam's step under a constant gradient is the rate itself.
        expected = -float(rate(jnp.int32(step)))
        np.testing.assert_allclose(updates["kernel"], expected, rtol=1e-4)


def test_gradients_are_clipped_by_their_global_norm():
    params = {"kernel": jnp.ones(4), "bias": jnp.ones(4)}
    grads = {"kernel": jnp.full(4, 30.0), "bias": jnp.full(4, 40.0)}
    clip = make(clip_norm=2.0)
    _, state = clip.update(grads, clip.init(params), params)
    moments = optax.tree_utils.tree_get(state, "mu")
    # Adam's first moment is 0.1 g; the norm of g is 100.
    np.testing.assert_allclose(moments["kernel"], 0.1 * 30.0 * 2.0 / 100.0, rtol=1e-5)
    np.testing.assert_allclose(moments["bias"], 0.1 * 40.0 * 2.0 / 100.0, rtol=1e-5)
