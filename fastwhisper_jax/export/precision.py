"""Rounds parameters to the dtype of an export, and reports what is lost."""

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.models.whisper.hf_names import Params

DTYPES = ("float32", "bfloat16", "float16")


def rounded(params: Params, dtype: str) -> tuple[Params, tuple[str, ...]]:
    """Rounds parameters to the nearest values of a dtype, ties to even.

    Args:
        params: nested dict of float32 arrays.
        dtype: one of `DTYPES`.

    Returns:
        The same tree in that dtype, and notes for the user: how many parameters became zero
        because they are too small for the dtype.

    Raises:
        InputError: parameters exceed the largest number of the dtype. The message counts them.
    """
    flat, underflows, overflows = {}, {}, {}
    for path, leaf in traverse_util.flatten_dict(params, sep="/").items():
        with np.errstate(over="ignore", under="ignore"):
            flat[path] = leaf.astype(jnp.dtype(dtype))
        overflows[path] = int(np.sum(np.isfinite(leaf) & ~np.isfinite(flat[path])))
        underflows[path] = int(np.sum((leaf != 0) & (flat[path] == 0)))
    if any(overflows.values()):
        raise InputError(
            f"{_count(overflows)} are beyond {dtype}'s largest number,"
            f" {float(jnp.finfo(dtype).max):.6g}; export as bfloat16 or float32"
        )
    notes = [f"{_count(underflows)} are too small for {dtype} and were rounded to 0"]
    return traverse_util.unflatten_dict(flat, sep="/"), tuple(notes * any(underflows.values()))


def _count(parameters: dict[str, int]) -> str:
    """The total number of parameters, and the array that has the most of them."""
    most = max(parameters, key=lambda path: parameters[path])
    total = sum(parameters.values())
    return f"{total:,} parameters ({parameters[most]:,} of them in {most})"
