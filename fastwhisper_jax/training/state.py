"""What a run carries from one update to the next, and how parameters are split."""

from typing import Any

import flax.struct
import flax.traverse_util
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.training.sharding import put_array, tree_shardings
from fastwhisper_jax.training.task import Params, Task


@flax.struct.dataclass
class TrainState:
    """The state of training, a pytree.

    Attributes:
        step: int32 scalar, the number of completed updates.
        params: the student's trained parameters, float32, a nested dict without the frozen leaves.
        frozen_params: the student's own frozen parameters. Parameters that it shares with the
            teacher are in neither tree: the task reads them from the teacher's parameters.
        opt_state: the optimiser's state of `params` alone.
        self_teacher_params: the self teacher, of the same shapes as `params`; None in a run of
            which no update learns from it.
    """

    step: jax.Array
    params: Params
    frozen_params: Params
    opt_state: optax.OptState
    self_teacher_params: Params | None


def init_state(
    params: Params,
    frozen_params: Params,
    optimizer: optax.GradientTransformation,
    keeps_self_teacher: bool,
) -> TrainState:
    """The state before the first update.

    Args:
        params: trained parameters.
        frozen_params: the student's own frozen parameters.
        optimizer: its state is made for `params` only.
        keeps_self_teacher: allocate the self teacher; its values are set when its phase begins.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        frozen_params=frozen_params,
        opt_state=optimizer.init(params),
        self_teacher_params=jax.tree.map(jnp.copy, params) if keeps_self_teacher else None,
    )


def abstract_state(task: Task, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of a run's state.

    Raises:
        InputError: a leaf has no sharding rule, or does not divide over the mesh.
    """
    keeps_self_teacher = task.self_teacher is not None
    shapes = jax.eval_shape(
        lambda params, frozen: init_state(params, frozen, optimizer, keeps_self_teacher),
        *task.param_shapes,
    )
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        tree_shardings(shapes, task.sharding_rules, mesh),
    )


def first_state(
    task: Task, optimizer: optax.GradientTransformation, shardings: TrainState
) -> TrainState:
    """The state before the first update, on the mesh."""
    init = jax.jit(
        lambda params, frozen: init_state(params, frozen, optimizer, task.self_teacher is not None),
        donate_argnums=(0, 1),
        out_shardings=shardings,
    )
    to = (shardings.params, shardings.frozen_params)
    return init(*jax.tree.map(put_array, task.initial_params(), to))


def split_params(
    params: Params, frozen: tuple[str, ...], always_frozen: tuple[str, ...] = ()
) -> tuple[Params, Params]:
    """Splits parameters into those trained and those frozen, without the leaves of the other.

    Args:
        params: a nested dict of arrays.
        frozen: paths with "/" between names, as a recipe gives them; a path covers all leaves
            below it.
        always_frozen: paths that no recipe trains.

    Raises:
        InputError: a path of `frozen` names no parameter, or nothing is left to train.
    """
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    for path in frozen:
        if not any(_covers(path, name) for name in flat):
            tops = sorted({"/".join(name.split("/")[:2]) for name in flat})
            raise InputError(
                f"student.frozen={path!r} names no parameter; paths start with one of {tops}"
            )
    paths = (*frozen, *always_frozen)
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


def merge_params(*parts: Params) -> Params:
    """The inverse of `split_params`: one tree of the leaves of all parts, which are disjoint."""
    flat: dict[tuple[str, ...], Any] = {}
    for part in parts:
        flat |= flax.traverse_util.flatten_dict(part)
    return flax.traverse_util.unflatten_dict(flat)
