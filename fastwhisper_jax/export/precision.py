"""The dtype of an export: parameters rounded to it, and what the rounding loses."""

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.models.whisper.hf_names import Params

DTYPES = ("float32", "bfloat16", "float16")


def rounded(params: Params, dtype: str) -> tuple[Params, tuple[str, ...]]:
    """Round parameters to a dtype, to nearest, ties to even.

    Args:
        params: nested dict of float32 arrays.
        dtype: one of `DTYPES`.

    Returns:
        The same tree in that dtype, and notes for the user: parameters that became zero because
        the dtype has nothing as small.

    Raises:
        InputError: some are beyond the dtype's largest number; they are counted and named.
    """
    flat, lost, overflown = {}, {}, {}
    for path, leaf in traverse_util.flatten_dict(params, sep="/").items():
        with np.errstate(over="ignore", under="ignore"):
            flat[path] = leaf.astype(jnp.dtype(dtype))
        overflown[path] = int(np.sum(np.isfinite(leaf) & ~np.isfinite(flat[path])))
        lost[path] = int(np.sum((leaf != 0) & (flat[path] == 0)))
    if any(overflown.values()):
        raise InputError(
            f"{_count(overflown)} are beyond {dtype}'s largest number,"
            f" {float(jnp.finfo(dtype).max):.6g}; export as bfloat16 or float32"
        )
    notes = [f"{_count(lost)} are too small for {dtype} and were rounded to 0"]
    return traverse_util.unflatten_dict(flat, sep="/"), tuple(notes * any(lost.values()))


def _count(parameters: dict[str, int]) -> str:
    """How many, and where most of them lie."""
    most = max(parameters, key=lambda path: parameters[path])
    total = sum(parameters.values())
    return f"{total:,} parameters ({parameters[most]:,} of them in {most})"
