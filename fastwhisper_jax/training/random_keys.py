"""Random keys of a run: one for each purpose and each update."""

import jax

# Purposes of keys. Their numbers must not change, so that a resumed older run draws the same.
SPEC_AUGMENT = 0
DROPOUT = 1


def step_key(seed: int, purpose: int, step: jax.typing.ArrayLike) -> jax.Array:
    """Returns the key of one purpose at one step; other purposes and steps get other keys.

        fold_in(fold_in(key(seed), purpose), step)

    Args:
        seed: of the run.
        purpose: `SPEC_AUGMENT` or `DROPOUT`.
        step: completed updates, an integer scalar, traced or not.
    """
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), purpose), step)
