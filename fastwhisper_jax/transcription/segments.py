"""The parts of a transcript, and how a window's tokens are cut into segments."""

import dataclasses
from collections.abc import Sequence

from fastwhisper_jax.audio.constants import FRAMES_PER_POSITION
from fastwhisper_jax.transcription.words import WITHOUT_SPACES


@dataclasses.dataclass(frozen=True)
class Word:
    """A word with its space and punctuation, and when it is spoken, in seconds."""

    word: str
    start: float
    end: float
    probability: float


@dataclasses.dataclass(frozen=True)
class Segment:
    """A stretch of speech between two timestamps.

    Attributes:
        start: seconds from the recording's start.
        end: seconds from the recording's start.
        text: the text, without surrounding spaces.
        tokens: the segment's tokens, timestamps included.
        temperature: see `DecodedWindow`, of the segment's window, like the next three.
        avg_logprob: mean log-probability of the window's tokens.
        compression_ratio: of the window's text.
        no_speech_prob: probability that nobody speaks in the window.
        words: None unless words get their own times.
    """

    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: tuple[Word, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Transcript:
    """A recording's text.

    Attributes:
        language: code of the language, given or detected; None for English-only models.
        duration: length of the recording in seconds.
        segments: the segments, in order of time.
        is_translated: whether the text is English whatever the language.
    """

    language: str | None
    duration: float
    segments: tuple[Segment, ...]
    is_translated: bool = False

    @property
    def text(self) -> str:
        """The text of all segments, joined by spaces if the language is written with spaces."""
        has_spaces = self.is_translated or self.language not in WITHOUT_SPACES
        return (" " if has_spaces else "").join(segment.text for segment in self.segments)


@dataclasses.dataclass(frozen=True)
class Span:
    """A segment within its window: tokens[first:last], from start to end in mel frames."""

    first: int
    last: int
    start_frame: int
    end_frame: int


def split_window(
    tokens: Sequence[int], timestamp_begin: int, frames: int
) -> tuple[tuple[Span, ...], int]:
    """Cuts a window's tokens at pairs of timestamps, and says where the next window starts.

    The window's end may cut off the segment after the last pair. That segment is dropped, and the
    next window starts at the pair. If the tokens end with a single timestamp, nothing was cut off.
    Then, and if there is no pair at all, the next window starts where this one ends.

    Args:
        tokens: what was emitted, without end of text.
        timestamp_begin: the token of 0.00 s.
        frames: mel frames of the window that are within the recording.

    Returns:
        The segments, and how many frames to move on, at least 1.

    Source: openai/whisper `transcribe.py`.
    """
    is_timestamp = [token >= timestamp_begin for token in tokens]
    cuts = [i for i in range(1, len(tokens)) if is_timestamp[i - 1] and is_timestamp[i]]
    if not cuts:
        end = frames
        if any(is_timestamp):
            last = max(i for i in range(len(tokens)) if is_timestamp[i])
            end = (tokens[last] - timestamp_begin) * FRAMES_PER_POSITION or frames
        return (Span(0, len(tokens), 0, end),), frames
    ends_in_one_timestamp = is_timestamp[-2:] == [False, True]
    if ends_in_one_timestamp:
        cuts.append(len(tokens))
    spans = tuple(
        Span(
            first,
            last,
            (tokens[first] - timestamp_begin) * FRAMES_PER_POSITION,
            (tokens[last - 1] - timestamp_begin) * FRAMES_PER_POSITION,
        )
        for first, last in zip([0, *cuts], cuts, strict=False)
    )
    return spans, frames if ends_in_one_timestamp else max(spans[-1].end_frame, 1)
