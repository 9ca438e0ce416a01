"""Shows how far a command has come: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO


class Advance(Protocol):
    """What `progress` yields."""

    def __call__(self, n: int = 1, **fields: Any) -> None:
        """Counts `n` more units as done; `fields` (loss=0.31) replace those shown before."""

    def write(self, line: str) -> None:
        """Prints a line without disturbing the bar."""


@contextmanager
def progress(
    total: int | None,
    description: str,
    unit: str,
    *,
    initial: int = 0,
    shown: bool = True,
    every_seconds: float = 10.0,
    stream: TextIO | None = None,
) -> Iterator[Advance]:
    """Shows the rate and the time left while the block runs.

    The rate is measured from the first call of `advance` on. What comes before it, such as
    compiling, happens once and says nothing about the units that are left.

        with progress(200, "train", "steps") as advance:
            for _ in range(200):
                advance(1, loss=0.5)

    Args:
        total: number of units in all; None if it is not known.
        description: the activity, in a word or two.
        unit: what is counted, in the plural.
        initial: units that an earlier run has completed; they do not count towards the rate.
        shown: False prints nothing, for all processes but the first.
        every_seconds: least time between two plain lines.
        stream: where to print; standard error by default, so that results can be piped.
    """
    stream = sys.stderr if stream is None else stream
    advance: _Bar | _Lines
    if shown and stream.isatty():
        advance = _Bar(total, description, unit, initial, stream)
    else:
        advance = _Lines(
            total, description, unit, initial, every_seconds, stream if shown else None
        )
    try:
        yield advance
    finally:
        advance.close()


class _Bar:
    def __init__(
        self, total: int | None, description: str, unit: str, initial: int, stream: TextIO
    ) -> None:
        from tqdm import tqdm

        self._is_timing = False
        self._bar = tqdm(
            total=total,
            desc=description,
            unit=f" {unit}",
            initial=initial,
            file=stream,
            dynamic_ncols=True,
        )

    def __call__(self, n: int = 1, **fields: Any) -> None:
        if fields:
            self._bar.set_postfix_str(_joined(fields), refresh=False)
        if self._is_timing:
            self._bar.update(n)
            return
        self._is_timing = True
        self._bar.unpause()  # restarts its clock
        self._bar.initial += n
        self._bar.last_print_n += n
        self._bar.n += n
        self._bar.refresh()

    def write(self, line: str) -> None:
        self._bar.write(line, file=self._bar.fp)

    def close(self) -> None:
        self._bar.close()


class _Lines:
    def __init__(
        self,
        total: int | None,
        description: str,
        unit: str,
        initial: int,
        every_seconds: float,
        stream: TextIO | None,
    ) -> None:
        self._total, self._description, self._unit = total, description, unit
        self._done = self._printed = initial
        self._every_seconds, self._stream = every_seconds, stream
        self._began = self._printed_at = time.monotonic()
        # Units done and time at the end of the first call, from which the rate is measured.
        self._timed_from: tuple[int, float] | None = None
        self._fields: dict[str, Any] = {}

    def __call__(self, n: int = 1, **fields: Any) -> None:
        self._done += n
        self._fields = fields or self._fields
        now = time.monotonic()
        if self._timed_from is None:
            self._timed_from = self._done, now
        if now - self._printed_at >= self._every_seconds:
            self._print(now, self._timed_from)

    def write(self, line: str) -> None:
        if self._stream is not None:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        if self._timed_from is not None and self._done > self._printed:
            self._print(time.monotonic(), self._timed_from)

    def _print(self, now: float, timed_from: tuple[int, float]) -> None:
        self._printed, self._printed_at = self._done, now
        timed, timed_seconds = self._done - timed_from[0], now - timed_from[1]
        rate = timed / timed_seconds if timed_seconds > 0 else 0.0
        of_total = "" if self._total is None else f"/{self._total}"
        parts = [f"{self._description}: {self._done}{of_total} {self._unit}"]
        if rate > 0:
            parts.append(f"{rate:.3g} {self._unit}/s")
        if self._total is None or self._done >= self._total:
            parts.append(f"in {_duration(now - self._began)}")
        elif rate > 0:
            parts.append(f"{_duration((self._total - self._done) / rate)} left")
        if self._fields:
            parts.append(_joined(self._fields))
        self.write(", ".join(parts))


def _joined(fields: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in fields.items()
    )


def _duration(seconds: float) -> str:
    """Formats a time as '41s', '3m07s' or '2h05m'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
