"""How far a command has come: a bar on a terminal, now and then a plain line elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO


class Advance(Protocol):
    """What `progress` hands out."""

    def __call__(self, n: int = 1, **fields: Any) -> None:
        """Counts `n` more units as done; `fields` (loss=0.31) replace those shown before."""

    def say(self, line: str) -> None:
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
    """Shows rate and time left while the block runs.

        with progress(200, "train", "steps") as advance:
            for _ in range(200):
                advance(1, loss=0.5)

    Args:
        total: Units in all; None when that is not known.
        description: What is under way, in a word or two.
        unit: What is counted, in the plural.
        initial: Units that an earlier run has done; they do not enter the rate.
        shown: False prints nothing: for all processes but one.
        every_seconds: The least time between two plain lines.
        stream: Where to print; standard error by default, so that results can be piped.
    """
    stream = sys.stderr if stream is None else stream
    shows_bar = shown and stream.isatty()
    advance: _Bar | _Lines
    if shows_bar:
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
            self._bar.set_postfix_str(_shown(fields), refresh=False)
        self._bar.update(n)

    def say(self, line: str) -> None:
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
        self._initial = self._done = self._printed = initial
        self._every_seconds, self._stream = every_seconds, stream
        self._began = self._printed_at = time.monotonic()
        self._fields: dict[str, Any] = {}

    def __call__(self, n: int = 1, **fields: Any) -> None:
        self._done += n
        self._fields = fields or self._fields
        if time.monotonic() - self._printed_at >= self._every_seconds:
            self._print()

    def say(self, line: str) -> None:
        if self._stream is not None:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        if self._done > self._printed:
            self._print()

    def _print(self) -> None:
        now = time.monotonic()
        self._printed, self._printed_at = self._done, now
        seconds = now - self._began
        rate = (self._done - self._initial) / seconds if seconds > 0 else 0.0
        of_total = "" if self._total is None else f"/{self._total}"
        parts = [f"{self._description}: {self._done}{of_total} {self._unit}"]
        if rate > 0:
            parts.append(f"{rate:.3g} {self._unit}/s")
            if self._total is not None and self._done < self._total:
                parts.append(f"{_duration((self._total - self._done) / rate)} left")
            else:
                parts.append(f"in {_duration(seconds)}")
        if self._fields:
            parts.append(_shown(self._fields))
        self.say(", ".join(parts))


def _shown(fields: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in fields.items()
    )


def _duration(seconds: float) -> str:
    """'41s', '3m07s' or '2h05m'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
