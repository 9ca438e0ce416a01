"""Checkpoints that are complete or not used: Orbax saves, and a digest guards each step.

`DIRECTORY/<step>/` holds the state after update `step` (`state/`), a JSON object of the caller
(`metadata/`) and `digest.json`, the sha256 of every file that a restore reads. The digest is
written after all other files and before Orbax renames the folder into place. (An object store
renames nothing; Orbax marks the folder as complete there.) So a folder with a digest is complete.
Orbax alone would restore a flipped bit silently, could not fall back to an older step, and would
take an empty folder named like a step for the newest checkpoint.

The metadata also holds the scores of the state. So which checkpoint is the best follows from the
checkpoints alone.
"""

import dataclasses
import types
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from jax.experimental import multihost_utils

from fastwhisper_jax.errors import InputError, IntegrityError
from fastwhisper_jax.files import Path, is_remote, make_folder
from fastwhisper_jax.training import digests
from fastwhisper_jax.training.named_leaves import check_leaves, named_leaves, nest, signatures
from fastwhisper_jax.training.scores import SCORES, finite_scores, read_score

_UNFINISHED = ".orbax-checkpoint-tmp"
_METADATA = "metadata"

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
        keep_best: name of a score. The checkpoint for which it is lowest is kept as well, the
            earliest of equals. None keeps the newest only.
    """

    def __init__(self, directory: Path, keep: int = 3, keep_best: str | None = None) -> None:
        if keep < 1:
            raise InputError(f"keep={keep} checkpoints would keep none; use 1 or more")
        # Orbax logs its progress as warnings through absl. A user cannot act on them.
        absl_logging.set_verbosity(absl_logging.ERROR)
        self.directory = Path(directory).absolute()
        self._renames = not is_remote(self.directory)
        self._keep, self._keep_best = keep, keep_best
        self._saving: int | None = None
        self._known_damaged: set[int] = set()
        self._known_good: set[int] = set()
        self._checkpointer = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(),
            async_options=ocp.options.AsyncOptions(
                post_finalization_callback=self._write_digest_of_save
            ),
        )

    def save(
        self,
        step: int,
        state: PyTree,
        metadata: Mapping[str, Any],
        scores: Mapping[str, float] = types.MappingProxyType({}),
    ) -> None:
        """Copies `state` to the host and writes it in the background.

        Waits for the save before this one. A folder of the same step is replaced. Folders of later
        steps are removed after this save, because this state does not descend from them.

        Args:
            step: completed updates.
            state: a pytree of arrays; None leaves are allowed. It may be donated right afterwards.
            metadata: anything that JSON can hold.
            scores: what the state scored, by name; the lower, the better. Values that are not
                finite are left out.

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
                    {
                        "metadata": dict(metadata),
                        "leaves": signatures(state),
                        SCORES: finite_scores(scores),
                    }
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

    def is_best(self, step: int, scores: Mapping[str, float]) -> bool:
        """Whether a state with these scores beats every good checkpoint of an earlier step.

        All processes get the same answer. A state that beats them has to be saved with its scores.
        """
        if self._keep_best is None:
            return False
        self.wait()
        beats = False
        if jax.process_index() == 0:
            score = finite_scores(scores).get(self._keep_best)
            best, _ = self._best_of(before for before in self.steps() if before < step)
            beats = score is not None and (best is None or score < best[0])
        return bool(_from_first(int(beats)))

    def best_good_step(self) -> tuple[int | None, tuple[str, ...]]:
        """Finds the checkpoint with the lowest score of which every file has its recorded digest.

        Returns:
            The step, or None if no good checkpoint has the score; and one line for each better
            checkpoint that was skipped.
        """
        self.wait()
        best, skipped = self._best_of(self.steps()) if jax.process_index() == 0 else (None, [])
        found = _from_first(best[1] if best else _NOTHING)
        return (None if found == _NOTHING else found), tuple(skipped)

    def _best_of(self, steps: Iterable[int]) -> tuple[tuple[float, int] | None, list[str]]:
        """Finds the score and the step of the best good one of some checkpoints.

        The files of a step are hashed once.
        """
        skipped: list[str] = []
        scores = {
            step: read_score(self.directory / str(step) / _METADATA, self._keep_best)
            for step in steps
            if step not in self._known_damaged
        }
        for score, step in sorted((x, step) for step, x in scores.items() if x is not None):
            damage = None if step in self._known_good else self._damage(step)
            if damage is None:
                return (score, step), skipped
            skipped.append(f"checkpoint {self.directory / str(step)} is damaged: {damage}")
        return None, skipped

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
        check_leaves(folder, stored=about["leaves"], wanted=signatures(abstract_state))
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
        (self._known_good if damage is None else self._known_damaged).add(step)
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
        self._known_good.add(newest)
        steps = self.steps()
        best, _ = self._best_of(step for step in steps if step <= newest)
        good = [step for step in steps if step <= newest and step not in self._known_damaged]
        kept = {*good[-self._keep :], *([best[1]] if best else ())}
        for step in set(steps) - kept:
            (self.directory / str(step)).rmtree()


def _from_first(number: int) -> int:
    """Returns the number that process 0 has."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def _placed(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
