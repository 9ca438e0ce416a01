"""RUN/metrics.jsonl and TensorBoard: one object per logged step.

Metrics travel as pairs (sum, count) until they are logged, so that a mean over devices, batches and
steps weighs every token once.
"""

import json
import math
import os
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np

from fastwhisper_jax.errors import InputError, IntegrityError

FILE_NAME = "metrics.jsonl"

Pairs = Mapping[str, tuple[Any, Any]]


def reduce_pairs(steps: Iterable[Pairs]) -> dict[str, float]:
    """The mean of each metric: its sums added up, over its counts added up.

    Args:
        steps: For each step its metrics as (sum, count), scalars on the device or the host.

    Returns:
        A mean for every name, nan where nothing was counted. Added up in float64.
    """
    totals: dict[str, np.ndarray] = {}
    for pairs in jax.device_get(list(steps)):
        for name, pair in pairs.items():
            totals[name] = totals.get(name, np.zeros(2)) + np.asarray(pair, np.float64)
    return {
        name: float(total / count) if count else math.nan for name, (total, count) in totals.items()
    }


class MetricsLog:
    """Writes a run's metrics. Use as a context manager, or call `close`; process 0 alone writes.

    Args:
        run_dir: Gets metrics.jsonl and tensorboard/.
        resumed_step: The checkpoint that the run goes on from: what was logged after it is dropped,
            so that the file of a resumed run is that of an uninterrupted one. None for a new run:
            the file starts empty.
    """

    def __init__(self, run_dir: Path, resumed_step: int | None = None) -> None:
        self._file = self._tensorboard = None
        self._last_step = -1
        if jax.process_index() != 0:
            return
        from tensorboardX import SummaryWriter

        path = Path(run_dir) / FILE_NAME
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [] if resumed_step is None else _lines_until(path, resumed_step)
            partial = path.with_name(f"{FILE_NAME}.partial")
            partial.write_text("".join(lines), encoding="utf-8")
            os.replace(partial, path)
            self._file = path.open("a", encoding="utf-8")
            self._tensorboard = SummaryWriter(
                str(path.parent / "tensorboard"),
                purge_step=0 if resumed_step is None else resumed_step + 1,
            )
        except OSError as error:
            raise InputError(
                f"cannot write metrics to {run_dir} ({error.strerror}); choose a run directory "
                "that can be written"
            ) from error
        if lines:
            self._last_step = json.loads(lines[-1])["step"]

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends one object and hands it to the operating system at once.

        Args:
            step: Completed updates; larger than that of the object before.
            values: Scalars by name. One that is not finite is written as null, for JSON has none.
        """
        assert step > self._last_step, f"step {step} logged after step {self._last_step}"
        self._last_step = step
        if self._file is None or self._tensorboard is None:
            return
        row = {"step": step} | {name: _plain(value) for name, value in values.items()}
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        for name, value in row.items():
            if name != "step" and value is not None:
                self._tensorboard.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes both files."""
        if self._file is not None and self._tensorboard is not None:
            self._file.close()
            self._tensorboard.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()


def _lines_until(path: Path, step: int) -> list[str]:
    """The lines up to `step`; a last line that a kill cut short comes after it, and is dropped."""
    if not path.exists():
        return []
    kept = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            break
        try:
            logged_step = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(
                f"{path}:{number} is not an object with a step; mend or remove the line"
            ) from error
        if logged_step <= step:
            kept.append(line)
    return kept


def _plain(value: Any) -> int | float | None:
    """A JSON number: a float32 in its shortest form, 0.3 and not 0.30000001192092896."""
    scalar = np.asarray(value)[()]
    if isinstance(scalar, np.integer):
        return int(scalar)
    return float(str(scalar)) if np.isfinite(scalar) else None
