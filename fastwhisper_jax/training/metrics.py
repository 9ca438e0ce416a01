"""A run's metrics: one JSON object for each logged step, and TensorBoard files.

Metrics stay pairs (sum, count) until they are logged. So a mean over devices, batches and steps
weighs every token once.
"""

import json
import math
import types
from collections.abc import Iterable, Mapping
from typing import Any, Self

import jax
import numpy as np

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.files import Path, is_remote
from fastwhisper_jax.training.metrics_files import LineSink, open_sink, read_lines

Pairs = Mapping[str, tuple[Any, Any]]


def reduce_pairs(steps: Iterable[Pairs]) -> dict[str, float]:
    """Returns the mean of each metric: the total of its sums over the total of its counts.

    Args:
        steps: the metrics of each step as (sum, count), scalars on the device or the host.

    Returns:
        A mean for every name; nan if nothing was counted. Totals are float64, and a mean has the
        digits of a float32.
    """
    totals: dict[str, np.ndarray] = {}
    for pairs in jax.device_get(list(steps)):
        for name, pair in pairs.items():
            totals[name] = totals.get(name, np.zeros(2)) + np.asarray(pair, np.float64)
    return {
        name: _short(np.float32(total / count)) if count else math.nan
        for name, (total, count) in totals.items()
    }


class DispatchedMetrics:
    """Metrics of dispatched steps. The host runs one step ahead of the device."""

    def __init__(self) -> None:
        self._steps: list[Pairs] = []

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, pairs: Pairs) -> None:
        """Adds a step that was just dispatched, and waits for the step before it."""
        if self._steps:
            jax.block_until_ready(self._steps[-1])
        self._steps.append(pairs)

    def reduce(self) -> dict[str, float]:
        """Returns the means over all steps, see `reduce_pairs`, and forgets the steps."""
        steps, self._steps = self._steps, []
        return reduce_pairs(steps)


class MetricsLog:
    """Writes a run's metrics. Only process 0 writes. Use as a context manager, or call `close`.

    Args:
        run_dir: gets metrics.jsonl and tensorboard/, or numbered parts in metrics/ if it is in an
            object store.
        resumed_step: the checkpoint that the run resumes from. Rows after it are dropped, so that
            a resumed run has the rows of an uninterrupted one, except around a stop that came
            between two rows. None starts a new run without rows.
    """

    def __init__(self, run_dir: Path, resumed_step: int | None = None) -> None:
        self._lines: LineSink | None = None
        self._tensorboard: Any = None
        self._last_step = -1
        if jax.process_index() != 0:
            return
        kept = []
        try:
            if resumed_step is not None:
                kept = [line for line in read_lines(run_dir) if line[0] <= resumed_step]
            self._lines = open_sink(run_dir, kept)
            if not is_remote(run_dir):
                self._tensorboard = _tensorboard(run_dir, resumed_step)
        except OSError as error:
            raise InputError(
                f"cannot write metrics to {run_dir} ({error.strerror}); choose a run directory "
                "that can be written"
            ) from error
        if kept:
            self._last_step = kept[-1][0]

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Adds one object. On a local disk it is handed to the operating system at once.

        Args:
            step: completed updates, more than in the object before.
            values: scalars by name. JSON has no nan or infinity, so they are written as null.
        """
        assert step > self._last_step, f"step {step} logged after step {self._last_step}"
        self._last_step = step
        if self._lines is None:
            return
        row = {"step": step} | {name: _plain(value) for name, value in values.items()}
        self._lines.write(json.dumps(row, allow_nan=False) + "\n")
        if self._tensorboard is not None:
            for name, value in row.items():
                if name != "step" and value is not None:
                    self._tensorboard.add_scalar(name, value, step)

    def flush(self) -> None:
        """Writes the rows so far, so that they outlive this process."""
        if self._lines is not None:
            self._lines.flush()

    def close(self) -> None:
        """Flushes and closes all files."""
        for sink in (self._lines, self._tensorboard):
            if sink is not None:
                sink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()


def _tensorboard(run_dir: Path, resumed_step: int | None) -> Any:
    from tensorboardX import SummaryWriter

    first_step = 0 if resumed_step is None else resumed_step + 1
    return SummaryWriter(str(run_dir / "tensorboard"), purge_step=first_step)


def _plain(value: Any) -> int | float | None:
    """Returns a JSON number, or None if the value is not finite."""
    scalar = np.asarray(value)[()]
    if isinstance(scalar, np.integer):
        return int(scalar)
    return _short(scalar) if np.isfinite(scalar) else None


def _short(scalar: Any) -> float:
    """Returns the shortest decimal of a NumPy float: 0.3, not 0.30000001192092896."""
    return float(str(scalar))
