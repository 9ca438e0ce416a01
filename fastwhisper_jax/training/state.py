"""What a run carries from one update to the next, and how a student's parameters are split."""

from typing import Any

import flax.struct
import flax.traverse_util
import jax
import jax.numpy as jnp
import optax

from fastwhisper_jax.errors import InputError

ALWAYS_FROZEN = ("encoder/positions",)


@flax.struct.dataclass
class TrainState:
    """The state of training, a pytree.

    Attributes:
        step: int32 scalar, the number of completed updates.
        params: the student's trained parameters, float32, a nested dict without the frozen leaves.
        frozen_params: the student's own frozen parameters. An encoder that is the teacher's is in
            neither: the step reads it from the teacher's parameters.
        opt_state: optimiser state of `params` alone.
        self_teacher_params: the student's earlier self, shaped like `params`; None in a run no update of
            which learns from it.
    """

    step: jax.Array
    params: dict[str, Any]
    frozen_params: dict[str, Any]
    opt_state: optax.OptState
    self_teacher_params: dict[str, Any] | None


def split_params(
    params: dict[str, Any], frozen: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits parameters into those trained and those frozen, without the leaves of the other.

    Args:
        params: a nested dict of arrays.
        frozen: paths with "/" between names; a path covers all leaves below it.

    Raises:
        InputError: a path names no parameter, or nothing is left to train.
    """
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    for path in frozen:
        if not any(_covers(path, name) for name in flat):
            tops = sorted({"/".join(name.split("/")[:2]) for name in flat})
            raise InputError(
                f"student.frozen={path!r} names no parameter; paths start with one of {tops}"
            )
    paths = (*frozen, *ALWAYS_FROZEN)
    is_frozen = {name: any(_covers(path, name) for path in paths) for name in flat}
    if all(is_frozen.values()):
        raise InputError(f"student.frozen={frozen} leaves nothing to train; unfreeze some part")
    unflatten = flax.traverse_util.unflatten_dict
    return (
        unflatten({name: x for name, x in flat.items() if not is_frozen[name]}, sep="/"),
        unflatten({name: x for name, x in flat.items() if is_frozen[name]}, sep="/"),
    )


def _covers(path: str, name: str) -> bool:
    return name == path or name.startswith(path + "/")


def merge_params(*parts: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `split_params`: one tree of the leaves of all parts, which are disjoint."""
    flat: dict[tuple[str, ...], Any] = {}
    for part in parts:
        flat |= flax.traverse_util.flatten_dict(part)
    return flax.traverse_util.unflatten_dict(flat)


def init_state(
    params: dict[str, Any],
    frozen_params: dict[str, Any],
    optimizer: optax.GradientTransformation,
    keeps_self_teacher: bool,
) -> TrainState:
    """The state before the first update.

    Args:
        params: trained parameters.
        frozen_params: the student's own frozen parameters.
        optimizer: its state is made for `params` only.
        keeps_self_teacher: allocate the student's earlier self (it is seeded when its phase begins).
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        frozen_params=frozen_params,
        opt_state=optimizer.init(params),
        self_teacher_params=jax.tree.map(jnp.copy, params) if keeps_self_teacher else None,
    )


def whole_student(
    state: TrainState, teacher_params: dict[str, Any], shares_encoder: bool
) -> dict[str, Any]:
    """All of the student's parameters, its encoder taken from the teacher if they share it."""
    shared = {"encoder": teacher_params["encoder"]} if shares_encoder else {}
    return merge_params(state.params, state.frozen_params, shared)
