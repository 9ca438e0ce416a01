"""Rounding to a dtype reports what it loses."""

import numpy as np
import pytest

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.export.precision import DTYPES, rounded


def tree(*values):
    return {"encoder": {"norm": np.array(values, np.float32)}, "decoder": {"norm": np.ones(3)}}


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_that_fit_are_kept_without_a_note(dtype):
    params, notes = rounded(tree(0.0, -0.5, 1024.0), dtype)
    assert params["encoder"]["norm"].dtype.name == dtype
    assert params["encoder"]["norm"].tolist() == [0.0, -0.5, 1024.0]
    assert notes == ()


def test_float32_changes_no_bit():
    values = np.random.default_rng(0).normal(size=100).astype(np.float32)
    params, _ = rounded(tree(*values), "float32")
    assert params["encoder"]["norm"].tobytes() == values.tobytes()


def test_values_that_become_zero_are_counted_and_named():
    _, notes = rounded(tree(0.0, 1e-9, -1e-8, 1.0), "float16")
    assert notes == (
        "2 parameters (2 of them in encoder/norm) are too small for float16 and were rounded to 0",
    )
    assert rounded(tree(0.0, 1e-9, -1e-8, 1.0), "bfloat16")[1] == ()


def test_values_beyond_the_largest_number_are_refused_and_named():
    with pytest.raises(
        InputError, match=r"1 parameters \(1 of them in encoder/norm\) are beyond float16's"
    ):
        rounded(tree(70_000.0, 1.0), "float16")
    assert rounded(tree(70_000.0, 1.0), "bfloat16")[1] == ()
