"""The student is its teacher without some layers; nothing else changes."""

import dataclasses

import jax
import numpy as np
import pytest

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.models.student import kept_layers, student_dimensions, student_params


@pytest.mark.parametrize(
    "count, layers, kept",
    [
        (1, 6, (5,)),
        (2, 6, (0, 5)),
        (3, 6, (0, 2, 5)),
        (6, 6, (0, 1, 2, 3, 4, 5)),
        (2, 32, (0, 31)),
        (4, 32, (0, 10, 20, 31)),
        (1, 1, (0,)),
    ],
)
def test_a_count_is_spread_as_far_as_possible(count, layers, kept):
    assert kept_layers(count, layers, "student.decoder_layers") == kept


@pytest.mark.parametrize("layers", [1, 4, 6, 12, 24, 32])
def test_every_count_keeps_the_last_layer_and_none_twice(layers):
    for count in range(1, layers + 1):
        kept = kept_layers(count, layers, "layers")
        assert len(set(kept)) == count
        assert kept == tuple(sorted(kept))
        assert kept[-1] == layers - 1
        assert count == 1 or kept[0] == 0


def test_none_keeps_all_and_indices_are_taken_as_they_are():
    assert kept_layers(None, 4, "layers") == (0, 1, 2, 3)
    assert kept_layers((1, 2), 4, "layers") == (1, 2)


@pytest.mark.parametrize("choice", [0, 7, -1])
def test_a_count_out_of_range_names_the_range(choice):
    with pytest.raises(InputError, match=rf"student\.x={choice}.* has 6 layers; choose 1 to 6"):
        kept_layers(choice, 6, "student.x")


@pytest.mark.parametrize("choice", [(), (1, 0), (0, 0), (0, 6), (-1, 2)])
def test_indices_must_ascend_within_the_teacher(choice):
    with pytest.raises(InputError, match=r"student\.x=.*must ascend, from 0 to at most 5"):
        kept_layers(choice, 6, "student.x")


def test_dimensions_change_in_depth_and_context_only(dims):
    teacher = dataclasses.replace(dims, n_audio_ctx=1500)
    student = student_dimensions(teacher, (0,), (0, 2), positions=1000)
    assert student.context_seconds == 20.0
    changed = {n: v for n, v in vars(student).items() if v != getattr(teacher, n)}
    assert changed == {"n_audio_ctx": 1000, "n_audio_layer": 1, "n_text_layer": 2}


def test_parameters_are_the_teachers_at_the_kept_layers_bit_for_bit(dims, params):
    sizes = {"n_audio_ctx": 12, "n_audio_layer": 1, "n_text_layer": 2}
    student = student_params(params, dataclasses.replace(dims, **sizes), (1,), (0, 2))
    shapes = jax.tree.map(lambda x: x.shape, student)
    kept = {"encoder": [1], "decoder": [0, 2]}
    for stack, layers in kept.items():
        expected = dict(params[stack])
        expected["layers"] = jax.tree.map(lambda x, i=layers: x[np.array(i)], expected["layers"])
        if stack == "encoder":
            expected["positions"] = expected["positions"][:12]
        assert jax.tree.structure(student[stack]) == jax.tree.structure(expected)
        jax.tree.map(np.testing.assert_array_equal, student[stack], expected)
    assert shapes["encoder"]["positions"] == (12, dims.n_state)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_parameters_are_float32_on_the_host_and_whole_stacks_take_no_memory(dims, dtype):
    ones = np.ones((dims.n_audio_ctx, 2), dtype)
    teacher = {
        "encoder": {"layers": {"bias": ones[:2]}, "positions": ones},
        "decoder": {"layers": {"bias": ones[:3]}, "embed_tokens": ones},
    }
    student = student_params(teacher, dims, (0, 1), (0, 2))
    for leaf in jax.tree.leaves(student):
        assert isinstance(leaf, np.ndarray) and leaf.dtype == np.float32
    assert np.shares_memory(student["encoder"]["positions"], ones) == (dtype == "float32")
    assert np.shares_memory(student["encoder"]["layers"]["bias"], ones) == (dtype == "float32")
    assert not np.shares_memory(student["decoder"]["layers"]["bias"], ones)
