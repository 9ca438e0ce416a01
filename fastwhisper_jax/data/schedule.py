"""The batch layouts of a whole run, by step: one integer is all that resuming needs."""

import bisect
import threading
from collections.abc import Sequence

from fastwhisper_jax.data.batching import BatchLayout, BatchRules, UtteranceSize, epoch_layouts
from fastwhisper_jax.errors import InputError


class BatchSchedule:
    """The batch layouts of a whole run: that of step k (from 0) makes update k + 1.

    Args:
        sizes: all utterances, each of which fits.
        rules: how batches are made.
        epochs: passes over the utterances; or
        steps: number of batches, over as many epochs as they need. Exactly one is given.
    """

    def __init__(
        self,
        sizes: Sequence[UtteranceSize],
        rules: BatchRules,
        *,
        epochs: int | None = None,
        steps: int | None = None,
    ) -> None:
        if (epochs is None) == (steps is None):
            raise ValueError("give either epochs or steps")
        if not sizes:
            raise InputError(
                "no utterance is left to train on; at least one must fit the context and the "
                "longest bucket: lengthen them, or check the data"
            )
        self._sizes = sizes
        self._rules = rules
        self._lock = threading.Lock()
        self._ends = [0]  # _ends[e]: number of batches in the epochs before e
        self._epochs: dict[int, list[BatchLayout]] = {}
        if steps is not None:
            self._length = steps
        else:
            assert epochs is not None
            self._length = self._end_of_epoch(epochs)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, step: int) -> BatchLayout:
        if not 0 <= step < self._length:
            raise IndexError(f"step {step} of {self._length}")
        epoch, index = self.position(step)
        with self._lock:
            return self._layouts(epoch)[index]

    def position(self, step: int) -> tuple[int, int]:
        """The epoch of a step's batch, and its number within the epoch."""
        while self._ends[-1] <= step:
            self._end_of_epoch(len(self._ends))
        epoch = bisect.bisect_right(self._ends, step) - 1
        return epoch, step - self._ends[epoch]

    def _end_of_epoch(self, epochs: int) -> int:
        # Joining utterances makes epochs differ in length, so each one is laid out to count it.
        with self._lock:
            while len(self._ends) <= epochs:
                self._ends.append(self._ends[-1] + len(self._layouts(len(self._ends) - 1)))
            return self._ends[epochs]

    def _layouts(self, epoch: int) -> list[BatchLayout]:
        if epoch not in self._epochs:
            # Threads that read ahead may be on both sides of an epoch's end, so keep two epochs.
            self._epochs = {
                e: layouts for e, layouts in self._epochs.items() if abs(e - epoch) <= 1
            }
            self._epochs[epoch] = epoch_layouts(self._sizes, self._rules, epoch)
        return self._epochs[epoch]
