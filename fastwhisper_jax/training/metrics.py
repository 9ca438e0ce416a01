"""A run's metrics: one JSON object per logged step, and TensorBoard.

Metrics travel as pairs (sum, count) until they are logged, so that a mean over devices, batches and
steps weighs every token once.
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
    """The mean of each metric: its sums added up, over its counts added up.

    Args:
        steps: For each step its metrics as (sum, count), scalars on the device or the host.

    Returns:
        A mean for every name, nan where nothing was counted. Added up in float64; no more digits
        than the float32 has that the sums came as.
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
    """The metrics of steps that were dispatched; the host runs one step ahead of the device."""

    def __init__(self) -> None:
        self._steps: list[Pairs] = []

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, pairs: Pairs) -> None:
        """Adds a step that was just dispatched; waits for the one before."""
        if self._steps:
            jax.block_until_ready(self._steps[-1])
        self._steps.append(pairs)

    def reduce(self) -> dict[str, float]:
        """The means over all steps, see `reduce_pairs`; empties."""
        steps, self._steps = self._steps, []
        return reduce_pairs(steps)


class MetricsLog:
    """Writes a run's metrics. Use as a context manager, or call `close`; process 0 alone writes.

    Args:
        run_dir: Gets metrics.jsonl and tensorboard/; in an object store numbered parts, metrics/.
        resumed_step: The checkpoint that the run goes on from: what was logged after it is dropped,
            so that the rows of a resumed run are those of an uninterrupted one, but for those on
            both sides of a stop between two rows. None for a new run: it starts empty.
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
        """Adds one object; on a local disk the operating system has it at once.

        Args:
            step: Completed updates; larger than that of the object before.
            values: Scalars by name. One that is not finite is written as null, for JSON has none.
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
        """Brings the rows so far to where they outlive this process."""
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
    """A JSON number, or null for one that is not finite."""
    scalar = np.asarray(value)[()]
    if isinstance(scalar, np.integer):
        return int(scalar)
    return _short(scalar) if np.isfinite(scalar) else None


def _short(scalar: Any) -> float:
    """A NumPy float in the shortest form of its dtype: 0.3 and not 0.30000001192092896."""
    return float(str(scalar))
