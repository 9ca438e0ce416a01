"""Splitting parameters loses nothing, and nothing frozen reaches the optimiser."""

import jax
import numpy as np
import optax
import pytest
from support import tiny_run as tiny

from fastwhisper_jax.distillation.pair import own_params
from fastwhisper_jax.distillation.sums import whole_student
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.training.state import init_state, merge_params, split_params


def names(tree):
    with_paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in with_paths}


@pytest.fixture(scope="module")
def params():
    return tiny.random_params(tiny.STUDENT)


@pytest.mark.parametrize(
    "frozen",
    [
        (),
        ("encoder",),
        ("encoder", "decoder/embed_tokens"),
        ("decoder/layers/mlp/fc1",),
        ("encoder/conv1", "encoder/conv2", "decoder"),
    ],
)
def test_merging_is_the_inverse_of_splitting(params, frozen):
    trained, kept = split_params(params, frozen)
    assert not names(trained) & names(kept)
    merged = merge_params(trained, kept)
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, merged, params)


def test_a_path_freezes_all_leaves_below_it_and_no_others(params):
    trained, kept = split_params(params, ("decoder/layers/attn", "encoder/norm"))
    expected = {n for n in names(params) if n.startswith(("decoder/layers/attn/", "encoder/norm/"))}
    assert names(kept) == expected
    assert "decoder/layers/attn_norm/scale" in names(trained)


def test_positions_of_the_encoder_are_never_trained(params):
    trained, kept = own_params(params, (), shares_encoder=False)
    assert names(kept) == {"encoder/positions"}
    assert "decoder/positions" in names(trained)


def test_a_path_that_names_nothing_is_an_error_that_shows_what_there_is(params):
    message = r"student\.frozen='decoder/embed' names no parameter; .*'decoder/embed_tokens'"
    with pytest.raises(InputError, match=message):
        split_params(params, ("encoder", "decoder/embed"))


def test_freezing_everything_is_an_error(params):
    with pytest.raises(InputError, match=r"\('encoder', 'decoder'\) leaves nothing to train"):
        split_params(params, ("encoder", "decoder"))


@pytest.mark.parametrize("keeps_self_teacher", [False, True])
def test_the_first_state_has_completed_no_update_and_no_moment_of_a_frozen_leaf(
    params, keeps_self_teacher
):
    trained, kept = split_params(params, ("encoder", "decoder/embed_tokens"))
    state = jax.eval_shape(
        lambda t, k: init_state(t, k, optax.adamw(1e-3), keeps_self_teacher), trained, kept
    )
    assert state.step.shape == () and state.step.dtype == np.int32
    moments = {name.split("mu/")[1] for name in names(state.opt_state) if "/mu/" in name}
    assert moments == names(trained)
    assert not any("encoder" in n or "embed_tokens" in n for n in names(state.opt_state))
    assert (state.self_teacher_params is not None) == keeps_self_teacher
    if keeps_self_teacher:
        assert names(state.self_teacher_params) == names(trained)


def test_a_shared_encoder_is_read_from_the_teacher(params):
    teacher = tiny.random_params(tiny.TEACHER, seed=5)
    trained, kept = own_params(params, ("encoder",), shares_encoder=True)
    student = whole_student(trained, kept, teacher, shares_encoder=True)
    assert student["encoder"]["norm"]["scale"] is teacher["encoder"]["norm"]["scale"]
    assert names(student) == names(params)
    jax.tree.map(np.testing.assert_array_equal, student["decoder"], params["decoder"])
