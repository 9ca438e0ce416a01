"""The windows of a model: lengths of audio that its encoder hears at once."""

import dataclasses
from collections.abc import Sequence

from fastwhisper_jax.audio.constants import (
    FRAMES_PER_POSITION,
    FRAMES_PER_SECOND,
    SAMPLE_RATE_HZ,
)
from fastwhisper_jax.errors import InputError

# Manifests round durations, so that a sum of them may exceed a window by this much.
ROUNDING_SECONDS = 1e-6


@dataclasses.dataclass(frozen=True)
class Windows:
    """Lengths of audio that a model hears at once. Speech goes to the shortest that holds it.

    Attributes:
        seconds: ascending lengths, each a whole number of encoder positions (0.02 s).
        margin_seconds: silence that must fit behind the speech. The longest window needs none.
    """

    seconds: tuple[float, ...]
    margin_seconds: float = 0.0

    @property
    def longest(self) -> float:
        """The length of the longest window."""
        return self.seconds[-1]

    def shortest_for(self, seconds: float) -> float:
        """The shortest window that holds this much speech and its margin, else the longest."""
        needed = seconds + self.margin_seconds - ROUNDING_SECONDS
        return next((window for window in self.seconds if window >= needed), self.longest)

    def only(self, seconds: float, name: str) -> "Windows":
        """One of these windows, for all speech.

        Args:
            seconds: its length.
            name: how errors call where the length comes from.

        Raises:
            InputError: it is none of these windows.
        """
        if seconds not in self.seconds:
            raise InputError(
                f"{name} {seconds:g}: the model hears windows of {listed(self.seconds)} s; choose "
                "one of them"
            )
        return Windows((seconds,))


def listed(lengths: Sequence[float]) -> str:
    """Lengths for the user: "2, 4 and 30"."""
    *others, last = [f"{length:g}" for length in lengths]
    return f"{', '.join(others)} and {last}" if others else last


def window_frames(seconds: float) -> int:
    """L, the mel frames of a window."""
    return round(seconds * FRAMES_PER_SECOND)


def window_positions(seconds: float) -> int:
    """S, the encoder positions of a window."""
    return window_frames(seconds) // FRAMES_PER_POSITION


def window_samples(seconds: float) -> int:
    """A, the samples of a window at 16 kHz."""
    return round(seconds * SAMPLE_RATE_HZ)


def check_windows(seconds: Sequence[float], longest: float, name: str, owner: str) -> None:
    """Checks lengths that a user gave.

    Args:
        seconds: the lengths.
        longest: what the model's encoder holds.
        name: how errors call the lengths.
        owner: whose `longest` is.

    Raises:
        InputError: they do not ascend, one is no whole number of encoder positions, or the last is
            above `longest`.
    """
    positions = [length * FRAMES_PER_SECOND / FRAMES_PER_POSITION for length in seconds]
    ascends = all(a < b for a, b in zip(seconds, seconds[1:], strict=False))
    if not seconds or not ascends or seconds[0] <= 0:
        raise InputError(f"{name}={seconds} must be ascending lengths above 0, in seconds")
    if any(abs(count - round(count)) > 1e-6 for count in positions):
        step = FRAMES_PER_POSITION / FRAMES_PER_SECOND
        raise InputError(
            f"{name}={seconds} must be whole encoder positions: multiples of {step:g} s"
        )
    if seconds[-1] > longest:
        raise InputError(f"{name}={seconds} must be at most {owner} {longest:g} s")
