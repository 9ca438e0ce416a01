"""Shows how far a command has come: a bar on a terminal, a plain line now and then elsewhere."""

import dataclasses
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

# The least time between two plain lines.
LINE_SECONDS = 10.0


class Advance(Protocol):
    """What `progress` yields."""

    def __call__(self, n: int = 1, **fields: Any) -> None:
        """Counts `n` more units as done; `fields` (loss=0.31) replace those shown before."""

    def write(self, line: str) -> None:
        """Prints a line without disturbing the bar."""


@contextmanager
def progress(
    total: int,
    description: str,
    unit: str,
    *,
    initial: int = 0,
    shown: bool = True,
    stream: TextIO | None = None,
) -> Iterator[Advance]:
    """Shows the rate and the time left while the block runs.

    The rate is measured from the first call of `advance` on. What comes before it, such as
    compiling, happens once and says nothing about the units that are left.

        with progress(200, "train", "steps") as advance:
            for _ in range(200):
                advance(1, loss=0.5)

    Args:
        total: number of units in all.
        description: the activity, in a word or two.
        unit: what is counted, in the plural.
        initial: units that an earlier run has completed; they do not count towards the rate.
        shown: False prints nothing, for all processes but the first.
        stream: where to print; standard error by default, so that results can be piped.
    """
    stream = sys.stderr if stream is None else stream
    if shown and stream.isatty():
        from tqdm import tqdm

        with tqdm(
            total=total,
            desc=description,
            unit=f" {unit}",
            initial=initial,
            file=stream,
            dynamic_ncols=True,
        ) as bar:
            yield _Bar(bar)
        return
    lines = _Lines(total, description, unit, initial, stream if shown else None)
    try:
        yield lines
    finally:
        lines.close()


@dataclasses.dataclass
class _Bar:
    bar: Any
    is_timing: bool = False

    def __call__(self, n: int = 1, **fields: Any) -> None:
        if fields:
            self.bar.set_postfix_str(_joined(fields), refresh=False)
        if self.is_timing:
            self.bar.update(n)
            return
        self.is_timing = True
        self.bar.unpause()  # restarts its clock
        self.bar.initial += n
        self.bar.last_print_n += n
        self.bar.n += n
        self.bar.refresh()

    def write(self, line: str) -> None:
        self.bar.write(line, file=self.bar.fp)


@dataclasses.dataclass
class _Lines:
    total: int
    description: str
    unit: str
    done: int
    stream: TextIO | None

    def __post_init__(self) -> None:
        self.printed = self.done
        self.began = self.printed_at = time.monotonic()
        # Units done and time at the end of the first call, from which the rate is measured.
        self.timed_from: tuple[int, float] | None = None
        self.fields: dict[str, Any] = {}

    def __call__(self, n: int = 1, **fields: Any) -> None:
        self.done += n
        self.fields = fields or self.fields
        now = time.monotonic()
        if self.timed_from is None:
            self.timed_from = self.done, now
        if now - self.printed_at >= LINE_SECONDS:
            self._print(now, *self.timed_from)

    def write(self, line: str) -> None:
        if self.stream is not None:
            print(line, file=self.stream, flush=True)

    def close(self) -> None:
        if self.timed_from is not None and self.done > self.printed:
            self._print(time.monotonic(), *self.timed_from)

    def _print(self, now: float, first: int, first_at: float) -> None:
        self.printed, self.printed_at = self.done, now
        rate = (self.done - first) / (now - first_at) if now > first_at else 0.0
        parts = [f"{self.description}: {self.done}/{self.total} {self.unit}"]
        if rate > 0:
            parts.append(f"{rate:.3g} {self.unit}/s")
        if self.done >= self.total:
            parts.append(f"in {_duration(now - self.began)}")
        elif rate > 0:
            parts.append(f"{_duration((self.total - self.done) / rate)} left")
        if self.fields:
            parts.append(_joined(self.fields))
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
