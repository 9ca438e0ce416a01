"""What a run draws from: one key for each use of chance and each update."""

import jax

# What a key is for. A number stays what it is, so that an older run resumed draws the same.
SPEC_AUGMENT = 0
DROPOUT = 1


def step_key(seed: int, purpose: int, step: jax.typing.ArrayLike) -> jax.Array:
    """Returns the key of one purpose at one step: no other purpose or step draws the same.

        fold_in(fold_in(key(seed), purpose), step)

    Args:
        seed: of the run.
        purpose: `SPEC_AUGMENT` or `DROPOUT`.
        step: completed updates, an integer scalar, traced or not; a resumed run draws alike.
    """
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), purpose), step)
