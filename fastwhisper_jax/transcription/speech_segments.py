"""Recordings cut at pauses, each piece decoded plainly: for models that write no timestamps.

Pieces do not follow from each other, so a batch may hold several of one recording.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from fastwhisper_jax.audio.constants import SECONDS_PER_FRAME
from fastwhisper_jax.audio.pauses import split_at_pauses
from fastwhisper_jax.transcription.long_form import LongForm, transcribe_recordings
from fastwhisper_jax.transcription.segments import Segment, Transcript
from fastwhisper_jax.transcription.slot import Recording
from fastwhisper_jax.transcription.window_model import WindowModel


class CutRecording(Recording, Protocol):
    """A recording that can be cut."""

    @property
    def loudness(self) -> np.ndarray:
        """(frames,) log10 of each frame's power."""
        ...

    def clip(self, start_frame: int, end_frame: int) -> np.ndarray:
        """(L, M) float32: a part of it as a recording of its own, followed by silence."""
        ...


@dataclasses.dataclass
class _Whole:
    """A recording, how many of its pieces are not closed yet, and the segments of the others."""

    index: int
    recording: CutRecording
    language: str | None
    pending: int
    is_translated: bool
    segments: list[Segment] = dataclasses.field(default_factory=list)

    def transcript(self) -> Transcript:
        """Of all pieces, in order of time."""
        return Transcript(
            language=self.language,
            duration=round(self.recording.seconds, 3),
            segments=tuple(sorted(self.segments, key=lambda segment: segment.start)),
            is_translated=self.is_translated,
        )


@dataclasses.dataclass(frozen=True)
class _Piece:
    """A piece as a recording of its own, which fits a window."""

    whole: _Whole
    start_frame: int
    frames: int

    @property
    def seconds(self) -> float:
        return self.frames * SECONDS_PER_FRAME

    def window(self, start_frame: int) -> np.ndarray:
        first = self.start_frame + start_frame
        return self.whole.recording.clip(first, self.start_frame + self.frames)

    def close(self) -> None:
        self.whole.pending -= 1
        if not self.whole.pending:
            self.whole.recording.close()


def transcribe_pieces(
    recordings: Iterator[tuple[int, CutRecording, str | None]], model: WindowModel, how: LongForm
) -> Iterator[tuple[int, Transcript]]:
    """`transcribe_recordings` with each recording cut at its pauses; a piece becomes a segment.

    A language that is not given is detected in the recording's first window.
    """
    pieces: dict[int, _Piece] = {}
    wholes: dict[int, _Whole] = {}
    numbers = itertools.count()

    def numbered_pieces() -> Iterator[tuple[int, Recording, str | None]]:
        for index, recording, language in recordings:
            spans = split_at_pauses(recording.loudness, how.window_frames)
            spoken = sum(end - start for start, end in spans) * SECONDS_PER_FRAME
            how.on_progress(recording.seconds - spoken)
            if spans and language is None and how.prompts.languages:
                found = model.detect_language(model.encode(recording.window(0)[None]))
                language = tuple(how.prompts.languages)[int(found[0])]
            # Silence is one piece without a frame, which is done as soon as it is opened.
            spans = spans or [(0, 0)]
            whole = _Whole(index, recording, language, len(spans), how.prompts.is_translation)
            wholes[index] = whole
            for (start, end), number in zip(spans, numbers, strict=False):
                pieces[number] = _Piece(whole, start, end - start)
                yield number, pieces[number], language

    try:
        for number, transcript in transcribe_recordings(numbered_pieces(), model, how):
            piece = pieces.pop(number)
            offset = piece.start_frame * SECONDS_PER_FRAME
            piece.whole.segments += [_later(segment, offset) for segment in transcript.segments]
            if not piece.whole.pending:
                yield piece.whole.index, wholes.pop(piece.whole.index).transcript()
    finally:
        for left in wholes.values():
            left.recording.close()


def _later(segment: Segment, seconds: float) -> Segment:
    """A segment whose times count from so many seconds earlier."""

    def moved(time: float) -> float:
        return round(time + seconds, 2)

    words = segment.words and tuple(
        dataclasses.replace(word, start=moved(word.start), end=moved(word.end))
        for word in segment.words
    )
    return dataclasses.replace(
        segment, start=moved(segment.start), end=moved(segment.end), words=words
    )
