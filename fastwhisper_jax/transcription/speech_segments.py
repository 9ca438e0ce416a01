"""Transcription of recordings that are cut at pauses, for models that write no timestamps.

A recording is cut into speech segments, and each is decoded as plain text. They do not depend on
each other, so a batch may hold several of one recording.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from fastwhisper_jax.audio.constants import SECONDS_PER_FRAME
from fastwhisper_jax.audio.pauses import split_at_pauses
from fastwhisper_jax.audio.windows import window_frames
from fastwhisper_jax.transcription.long_form import LongFormSettings, transcribe_recordings
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
        """(L, M) float32: the frames from start to end as a window, followed by silence."""
        ...


@dataclasses.dataclass
class _OpenRecording:
    """A recording whose speech segments are being transcribed.

    Attributes:
        index: its number.
        recording: the recording.
        language: code of its language.
        pending: how many of its speech segments are not done yet.
        is_translated: whether its text is English whatever the language.
        segments: what is transcribed of it so far.
    """

    index: int
    recording: CutRecording
    language: str | None
    pending: int
    is_translated: bool
    segments: list[Segment] = dataclasses.field(default_factory=list)

    def transcript(self) -> Transcript:
        """The transcript of all its speech segments, in order of time."""
        return Transcript(
            language=self.language,
            duration=round(self.recording.seconds, 3),
            segments=tuple(sorted(self.segments, key=lambda segment: segment.start)),
            is_translated=self.is_translated,
        )


@dataclasses.dataclass(frozen=True)
class _SpeechSegment:
    """A part of a recording that fits a window; the long-form loop treats it as a recording."""

    source: _OpenRecording
    start_frame: int
    frames: int

    @property
    def seconds(self) -> float:
        return self.frames * SECONDS_PER_FRAME

    def window(self, start_frame: int) -> np.ndarray:
        first = self.start_frame + start_frame
        return self.source.recording.clip(first, self.start_frame + self.frames)

    def close(self) -> None:
        self.source.pending -= 1
        if not self.source.pending:
            self.source.recording.close()


def transcribe_speech_segments(
    recordings: Iterator[tuple[int, CutRecording, str | None]],
    model: WindowModel,
    settings: LongFormSettings,
) -> Iterator[tuple[int, Transcript]]:
    """`transcribe_recordings` for recordings that are cut at their pauses.

    Each speech segment becomes a segment of the transcript. A language that is not given is
    detected in the recording's first window.
    """
    cut: dict[int, _SpeechSegment] = {}
    open_recordings: dict[int, _OpenRecording] = {}
    numbers = itertools.count()
    languages = settings.prompt_format.languages
    longest = window_frames(settings.windows.longest)

    def numbered_segments() -> Iterator[tuple[int, Recording, str | None]]:
        for index, recording, language in recordings:
            spans = split_at_pauses(recording.loudness, longest)
            spoken_seconds = sum(end - start for start, end in spans) * SECONDS_PER_FRAME
            settings.on_progress(recording.seconds - spoken_seconds)
            if spans and language is None and languages:
                detected = model.detect_language(model.encode(recording.window(0)[None]))
                language = tuple(languages)[int(detected[0])]
            # Segments of one length share a window; they are put in order of time at the end.
            spans.sort(key=lambda span: span[0] - span[1])
            # A silent recording gets one segment without frames, which is done when it is opened.
            spans = spans or [(0, 0)]
            is_translated = settings.prompt_format.is_translation
            source = _OpenRecording(index, recording, language, len(spans), is_translated)
            open_recordings[index] = source
            for (start, end), number in zip(spans, numbers, strict=False):
                cut[number] = _SpeechSegment(source, start, end - start)
                yield number, cut[number], language

    try:
        for number, transcript in transcribe_recordings(numbered_segments(), model, settings):
            speech = cut.pop(number)
            offset = speech.start_frame * SECONDS_PER_FRAME
            source = speech.source
            source.segments += [_moved(segment, offset) for segment in transcript.segments]
            if not source.pending:
                yield source.index, open_recordings.pop(source.index).transcript()
    finally:
        for unfinished in open_recordings.values():
            unfinished.recording.close()


def _moved(segment: Segment, seconds: float) -> Segment:
    """The segment with `seconds` added to its times."""

    def later(time: float) -> float:
        return round(time + seconds, 2)

    words = segment.words and tuple(
        dataclasses.replace(word, start=later(word.start), end=later(word.end))
        for word in segment.words
    )
    return dataclasses.replace(
        segment, start=later(segment.start), end=later(segment.end), words=words
    )
