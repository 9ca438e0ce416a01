"""Checkpoints that are complete or not used: Orbax saves, and a digest guards each step.

`DIRECTORY/<step>/` holds the state after update `step` (`state/`), a JSON object of the caller
(`metadata/`) and `digest.json`, the sha256 of every file that a restore reads. The digest is
written after all other files and before Orbax renames the folder into place. (An object store
renames nothing; Orbax marks the folder as complete there.) So a folder with a digest is complete.
Orbax alone would restore a flipped bit silently, could not fall back to an older step, and would
take an empty folder named like a step for the newest checkpoint.
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

# Process 0 sends these to the others instead of a step.
_NOTHING, _DAMAGED = -1, -2

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Restored:
    """A restored checkpoint.

    Attributes:
        step: completed updates of `state`.
        state: the pytree, with the structure, dtypes and shardings that were asked for.
        metadata: the JSON object that was saved with it.
        skipped: one line for every newer checkpoint that could not be used, with the reason.
    """

    step: int
    state: PyTree
    metadata: dict[str, Any]
    skipped: tuple[str, ...]


class Checkpoints:
    """The checkpoints of one run. Use as a context manager, or call `close`.

    Every process calls every method at the same point. Only process 0 lists, hashes, renames and
    deletes, so all processes must see the same `directory`.

    Args:
        directory: the folder; it is made when the first checkpoint is saved.
        keep: how many of the newest checkpoints are kept; at least 1.
    """

    def __init__(self, directory: Path, keep: int = 3) -> None:
        if keep < 1:
            raise InputError(f"keep={keep} checkpoints would keep none; use 1 or more")
        # Orbax logs its progress as warnings through absl. A user cannot act on them.
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

        Waits for the save before this one. A folder of the same step is replaced. Folders of later
        steps are removed after this save, because this state does not descend from them.

        Args:
            step: completed updates.
            state: a pytree of arrays; None leaves are allowed. It may be donated right afterwards.
            metadata: anything that JSON can hold.

        Raises:
            InputError: the directory cannot be written.
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
        """Returns when the current save is complete and older checkpoints are removed."""
        saved = self._saving
        try:
            self._checkpointer.wait_until_finished()
        finally:
            self._saving = None
        if saved is not None and jax.process_index() == 0:
            self._remove_superseded(newest=saved)

    def close(self) -> None:
        """Waits for the current save and ends Orbax's threads."""
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
        """Lists the steps of all complete checkpoints, ascending, without reading their files."""
        if not self.directory.is_dir():
            return []
        found = [path for path in self.directory.iterdir() if path.name.isdecimal()]
        return sorted(int(path.name) for path in found if (path / digests.FILE_NAME).exists())

    def newest_good_step(self) -> tuple[int | None, tuple[str, ...]]:
        """Finds the newest step of which every file has its recorded digest.

        Returns:
            The step, or None if there is no complete checkpoint; and one line for each newer
            checkpoint that was skipped.

        Raises:
            IntegrityError: there are complete checkpoints, and all of them are damaged.
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
            abstract_state: the structure of the state, with arrays or `jax.ShapeDtypeStruct`s as
                leaves. A leaf is divided over devices by its sharding; a leaf without one goes to
                the first device. If the structure depends on what was saved, give a function that
                maps the names of the saved leaves to it.
            step: which checkpoint; None for the newest good one.

        Returns:
            The checkpoint; None if there is no complete one.

        Raises:
            InputError: there is no checkpoint of `step`, or its leaves are not those of
                `abstract_state`. One line names all differences.
            IntegrityError: the checkpoint of `step`, or every checkpoint, is damaged.
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
        """Names what is wrong with the files of a step; None if nothing is."""
        damage = digests.damage(self.directory / str(step))
        if damage is not None:
            self._known_damaged.add(step)
        return damage

    def _write_digest_of_save(self) -> None:
        """Orbax calls this on process 0, after writing all files, before marking the folder."""
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
    """Returns the number that process 0 has."""
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
