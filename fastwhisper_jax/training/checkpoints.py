"""Checkpoints that are whole or not used: Orbax saves in the background, a digest guards each step.

`DIRECTORY/<step>/` holds the state after update `step` (`state/`), a JSON object of the caller's
(`metadata/`) and `digest.json`, the sha256 of every file that a restore reads. The digest is
written when all files are, before Orbax renames the folder into place (in an object store, where
nothing is renamed: marks it as complete), so a folder with a digest is whole. Orbax alone restores
a flipped bit silently, has no way back to an older step and takes an empty folder named like a step
for the newest one.
"""

import dataclasses
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from jax.experimental import multihost_utils

from fastwhisper_jax.errors import InputError, IntegrityError
from fastwhisper_jax.files import Path, is_remote, make_folder
from fastwhisper_jax.training import digests
from fastwhisper_jax.training.named_leaves import named_leaves, nest, signatures

_UNFINISHED = ".orbax-checkpoint-tmp"

# What process 0 tells the others instead of a step.
_NOTHING, _DAMAGED = -1, -2

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a restore found.

    Attributes:
        step: Completed updates of `state`.
        state: The pytree, of the structure, dtypes and shardings that were asked for.
        metadata: The JSON object that was saved with it.
        skipped: One line for every newer checkpoint that could not be used, and why.
    """

    step: int
    state: PyTree
    metadata: dict[str, Any]
    skipped: tuple[str, ...]


class Checkpoints:
    """The checkpoints of one run. Use as a context manager, or call `close`.

    Every process calls every method at the same point; process 0 alone looks, hashes, renames and
    deletes, so `directory` must be one that all processes see.

    Args:
        directory: Made when the first checkpoint is saved.
        keep: How many of the newest checkpoints stay; at least 1.
    """

    def __init__(self, directory: Path, keep: int = 3) -> None:
        if keep < 1:
            raise InputError(f"keep={keep} checkpoints would keep none; use 1 or more")
        # Orbax reports its progress as warnings through absl: nothing there that a user can act on.
        absl_logging.set_verbosity(absl_logging.ERROR)
        self.directory = Path(directory).absolute()
        self._renames = not is_remote(self.directory)
        self._keep = keep
        self._saving: int | None = None
        self._known_damaged: set[int] = set()
        self._checkpointer = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(),
            async_options=ocp.options.AsyncOptions(
                post_finalization_callback=self._write_digest_of_save
            ),
        )

    def save(self, step: int, state: PyTree, metadata: Mapping[str, Any]) -> None:
        """Copies `state` to the host and writes it in the background.

        Waits for the save before this one. A folder of the same step is replaced; folders of later
        steps are removed once this save is complete, for this state does not descend from them.

        Args:
            step: Completed updates.
            state: A pytree of arrays; None leaves are allowed. It may be donated right afterwards.
            metadata: Anything JSON can hold: the data cursor, the config's digest.

        Raises:
            InputError: The directory cannot be written.
        """
        self.wait()
        try:
            make_folder(self.directory)
            if jax.process_index() == 0:
                for unfinished in self.directory.glob(f"*{_UNFINISHED}*"):
                    unfinished.rmtree()
        except OSError as error:
            raise InputError(
                f"cannot write checkpoints to {self.directory} ({error.strerror}); choose a "
                "directory that can be written"
            ) from error
        self._saving = step
        self._checkpointer.save(
            self.directory / str(step),
            ocp.args.Composite(
                state=ocp.args.StandardSave(nest(named_leaves(state))),
                metadata=ocp.args.JsonSave(
                    {"metadata": dict(metadata), "leaves": signatures(state)}
                ),
            ),
            force=True,
        )

    def wait(self) -> None:
        """Returns when the save under way is complete and older checkpoints are removed."""
        saved = self._saving
        try:
            self._checkpointer.wait_until_finished()
        finally:
            self._saving = None
        if saved is not None and jax.process_index() == 0:
            self._remove_superseded(newest=saved)

    def close(self) -> None:
        """Waits for the save under way and ends Orbax's threads."""
        self.wait()
        self._checkpointer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()

    def steps(self) -> list[int]:
        """The steps of all complete checkpoints, ascending; their files are not read."""
        if not self.directory.is_dir():
            return []
        found = [path for path in self.directory.iterdir() if path.name.isdecimal()]
        return sorted(int(path.name) for path in found if (path / digests.FILE_NAME).exists())

    def newest_good_step(self) -> tuple[int | None, tuple[str, ...]]:
        """The newest step whose every file has the digest that was recorded.

        Returns:
            The step, None where there is no complete checkpoint at all; and one line for each newer
            one that was skipped.

        Raises:
            IntegrityError: There are complete checkpoints, and all of them are damaged.
        """
        self.wait()
        skipped: list[str] = []
        found = _from_first(self._find_newest_good(skipped) if jax.process_index() == 0 else 0)
        if found == _DAMAGED:
            raise IntegrityError(
                f"no good checkpoint in {self.directory}: "
                f"{'; '.join(skipped) or 'found by process 0'}; bring one back from a copy, or "
                "remove the directory to start from the beginning"
            )
        return (None if found == _NOTHING else found), tuple(skipped)

    def _find_newest_good(self, skipped: list[str]) -> int:
        steps = self.steps()
        for step in reversed(steps):
            damage = self._damage(step)
            if damage is None:
                return step
            skipped.append(f"checkpoint {self.directory / str(step)} is damaged: {damage}")
        return _DAMAGED if steps else _NOTHING

    def restore(
        self,
        abstract_state: PyTree | Callable[[Collection[str]], PyTree],
        step: int | None = None,
    ) -> Restored | None:
        """Reads the newest good checkpoint, or the one of `step`.

        Args:
            abstract_state: The state's structure with `jax.ShapeDtypeStruct`s for leaves (arrays do
                as well). A leaf's sharding says where it goes, on however many devices; a leaf
                without one goes to the first device. Where the structure follows from what was
                saved: a function from the names of the leaves that are there to all this.
            step: Which checkpoint; None for the newest good one.

        Returns:
            What was read; None where there is no complete checkpoint.

        Raises:
            InputError: There is no checkpoint of `step`, or the checkpoint's leaves are not those
                of `abstract_state`: all differences are named at once.
            IntegrityError: The checkpoint of `step`, or every checkpoint, is damaged.
        """
        skipped: tuple[str, ...] = ()
        if step is None:
            step, skipped = self.newest_good_step()
            if step is None:
                return None
        else:
            self._insist_on(step)
        folder = self.directory / str(step)
        about = self._checkpointer.restore(
            folder, ocp.args.Composite(metadata=ocp.args.JsonRestore())
        )["metadata"]
        if callable(abstract_state):
            abstract_state = abstract_state(about["leaves"].keys())
        wanted = named_leaves(abstract_state)
        _check_leaves(folder, stored=about["leaves"], wanted=signatures(abstract_state))
        placed = {name: _placed(leaf) for name, leaf in wanted.items()}
        read = self._checkpointer.restore(
            folder, ocp.args.Composite(state=ocp.args.StandardRestore(nest(placed)))
        )["state"]
        leaves = named_leaves(read)
        state = jax.tree.unflatten(jax.tree.structure(abstract_state), [leaves[n] for n in wanted])
        return Restored(step, state, about["metadata"], skipped)

    def _insist_on(self, step: int) -> None:
        self.wait()
        seen: list[str] = []
        found = _from_first(self._look_at(step, seen) if jax.process_index() == 0 else 0)
        what = "; ".join(seen) or "see process 0"
        if found == _NOTHING:
            raise InputError(f"no checkpoint of step {step} in {self.directory}; it has: {what}")
        if found == _DAMAGED:
            raise IntegrityError(
                f"checkpoint {self.directory / str(step)} is damaged: {what}; choose another "
                "step, or name none to use the newest good one"
            )

    def _look_at(self, step: int, seen: list[str]) -> int:
        steps = self.steps()
        if step not in steps:
            seen.append(", ".join(map(str, steps)) or "none")
            return _NOTHING
        damage = self._damage(step)
        if damage is None:
            return step
        seen.append(damage)
        return _DAMAGED

    def _damage(self, step: int) -> str | None:
        """What is wrong with the files of a step; None if nothing."""
        damage = digests.damage(self.directory / str(step))
        if damage is not None:
            self._known_damaged.add(step)
        return damage

    def _write_digest_of_save(self) -> None:
        """Called by Orbax on process 0 when all files are written and before its own mark."""
        if not self._renames:
            digests.write(self.directory / str(self._saving))
            return
        unfinished = list(self.directory.glob(f"{self._saving}{_UNFINISHED}*"))
        assert len(unfinished) == 1, f"one unfinished save expected, got {unfinished}"
        digests.write(unfinished[0])

    def _remove_superseded(self, newest: int) -> None:
        self._known_damaged.discard(newest)
        steps = self.steps()
        good = [step for step in steps if step <= newest and step not in self._known_damaged]
        for step in set(steps) - set(good[-self._keep :]):
            (self.directory / str(step)).rmtree()


def _from_first(number: int) -> int:
    """The number that process 0 has."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def _check_leaves(folder: Path, stored: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    differences = [
        f"{name} is {stored.get(name, 'absent')} there and {wanted.get(name, 'absent')} here"
        for name in sorted(stored.keys() | wanted.keys())
        if stored.get(name) != wanted.get(name)
    ]
    if differences:
        raise InputError(
            f"checkpoint {folder} holds another state than this run: {'; '.join(differences)}; "
            "use the configuration it was saved with, or another run directory"
        )


def _placed(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
