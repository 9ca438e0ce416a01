"""Files of a run's metrics: one that grows, or numbered parts in a store that cannot append."""

import json
import time
from typing import Protocol

from fastwhisper_jax.errors import IntegrityError
from fastwhisper_jax.files import Path, is_remote, write_whole

FILE_NAME = "metrics.jsonl"
PARTS = "metrics"

_PART_SECONDS = 60.0

Line = tuple[int, str]
"""A row's step, and its JSON with the end of line."""


class LineSink(Protocol):
    """Takes rows and writes them."""

    def write(self, line: str) -> None:
        """Adds a row."""

    def flush(self) -> None:
        """Writes the rows so far, so that they outlive this process."""

    def close(self) -> None:
        """Flushes. No rows may follow."""


def read_lines(run_dir: Path) -> list[Line]:
    """Reads the complete rows of a run, in the order of their steps.

    A row replaces earlier rows of the same and of later steps. A run wrote those before it resumed
    from an earlier checkpoint.

    Raises:
        IntegrityError: a line is not a row. A last line that a kill cut short is skipped.
    """
    lines: list[Line] = []
    for path in _files(run_dir):
        for number, line in enumerate(path.read_text().splitlines(keepends=True), 1):
            if not line.endswith("\n"):
                break
            try:
                step = json.loads(line)["step"]
            except (ValueError, KeyError, TypeError) as error:
                raise IntegrityError(
                    f"{path}:{number} is not an object with a step; mend or remove the line"
                ) from error
            while lines and lines[-1][0] >= step:
                lines.pop()
            lines.append((step, line))
    return lines


def open_sink(run_dir: Path, kept: list[Line]) -> LineSink:
    """Opens a run's metrics for writing; of the earlier rows only `kept` stays.

    Raises:
        OSError: the files cannot be written.
    """
    text = "".join(line for _, line in kept)
    return _Parts(run_dir / PARTS, text) if is_remote(run_dir) else _File(run_dir, text)


def _files(run_dir: Path) -> list[Path]:
    if is_remote(run_dir):
        folder = run_dir / PARTS
        return sorted(folder.iterdir()) if folder.exists() else []
    path = run_dir / FILE_NAME
    return [path] if path.exists() else []


class _File:
    def __init__(self, run_dir: Path, text: str) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        write_whole(run_dir / FILE_NAME, text)
        self._file = open(run_dir / FILE_NAME, "a", encoding="utf-8")

    def write(self, line: str) -> None:
        self._file.write(line)
        self._file.flush()

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class _Parts:
    """Writes a part when rows have waited for a minute, and at each flush."""

    def __init__(self, folder: Path, text: str) -> None:
        before = sorted(folder.iterdir()) if folder.exists() else []
        self._folder = folder
        self._number = int(before[-1].name.partition(".")[0]) + 1 if before else 0
        self._waiting = [text] if text else []
        self._since = time.monotonic()
        # The kept rows are written again before the old parts are deleted.
        self.flush()
        for path in before:
            path.unlink()

    def write(self, line: str) -> None:
        self._waiting.append(line)
        if time.monotonic() - self._since >= _PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        if self._waiting:
            write_whole(self._folder / f"{self._number:05d}.jsonl", "".join(self._waiting))
            self._number += 1
        self._waiting = []
        self._since = time.monotonic()

    def close(self) -> None:
        self.flush()
