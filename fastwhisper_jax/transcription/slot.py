"""One recording on its way through the model: where it stands, and what has been written so far."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from fastwhisper_jax.audio.constants import SECONDS_PER_FRAME
from fastwhisper_jax.decoding.fallback import DecodedWindow, Thresholds, is_silent
from fastwhisper_jax.transcription import segments, words
from fastwhisper_jax.transcription.segments import Segment, Span, Transcript

# Text that needed a higher temperature is not shown to the next window: it would go on like it.
HIGHEST_TRUSTED_TEMPERATURE = 0.5


class Recording(Protocol):
    """Log-mel features of a whole recording."""

    @property
    def frames(self) -> int:
        """Mel frames within the recording."""
        ...

    @property
    def seconds(self) -> float:
        """Its length."""
        ...

    def window(self, start_frame: int) -> np.ndarray:
        """(L, M) float32: a window of it, filled up behind its end."""
        ...

    def close(self) -> None:
        """Frees what it holds."""
        ...


@dataclasses.dataclass(frozen=True)
class Prompts:
    """The tokens that a prompt is made of.

    Attributes:
        languages: code to token, in the order of detection; empty for English-only models.
        start: start of transcript.
        after_language: task, and no timestamps where none are wanted.
        previous: start of previous text.
        most_previous: how many tokens of previous text are given at most; 0 for none.
        timestamp_begin: the token of 0.00 s.
        end_of_text: all text tokens are below it.
        is_translation: whether they ask for a translation into English.
    """

    languages: dict[str, int]
    start: int
    after_language: tuple[int, ...]
    previous: int
    most_previous: int
    timestamp_begin: int
    end_of_text: int
    is_translation: bool = False

    def start_tokens(self, language: str | None) -> tuple[int, ...]:
        """What a window's text follows, without previous text."""
        spoken = (self.languages[language],) if language in self.languages else ()
        return (self.start, *spoken, *self.after_language)


class Slot:
    """A recording, the frame that its next window starts at, and its segments so far.

    Invariant: everything before `seek` is transcribed, and `segments` and `_history` hold it.
    """

    def __init__(
        self, index: int, recording: Recording, language: str | None, prompts: Prompts, window: int
    ) -> None:
        self.index = index
        self.recording = recording
        self.language = language
        self.seek = 0
        self.segments: list[Segment] = []
        self._prompts = prompts
        self._window_frames = window
        self._history: list[int] = []

    @property
    def is_done(self) -> bool:
        return self.seek >= self.recording.frames

    @property
    def frames(self) -> int:
        """Frames of the next window that are within the recording."""
        return min(self._window_frames, self.recording.frames - self.seek)

    @property
    def start_tokens(self) -> tuple[int, ...]:
        """What a window's text follows, without previous text."""
        return self._prompts.start_tokens(self.language)

    def prompt(self) -> list[int]:
        """What the decoder is given for the next window."""
        start = list(self.start_tokens)
        most = self._prompts.most_previous
        if not most or not self._history:
            return start
        return [self._prompts.previous, *self._history[-most:], *start]

    def accept(
        self,
        window: DecodedWindow,
        thresholds: Thresholds,
        decode: words.Decode,
        times: np.ndarray | None,
    ) -> None:
        """Takes the next window's result and moves on.

        Args:
            window: what the window was decoded to.
            thresholds: tell silence.
            decode: text tokens to text.
            times: (T,) end of each token in seconds; None where words are not wanted.
        """
        if is_silent(window, thresholds):
            self.seek += self.frames
            return
        begin = self._prompts.timestamp_begin
        spans, advance = segments.split_window(window.tokens, begin, self.frames)
        for span in spans:
            segment = self._segment(window, span, decode, times)
            if segment.text and span.start_frame < span.end_frame:
                self.segments.append(segment)
                self._history.extend(segment.tokens)
        if window.temperature > HIGHEST_TRUSTED_TEMPERATURE:
            self._history.clear()
        # Only the latest tokens are ever shown again.
        del self._history[: -self._prompts.most_previous or None]
        self.seek += advance

    def _segment(
        self,
        window: DecodedWindow,
        span: Span,
        decode: words.Decode,
        times: np.ndarray | None,
    ) -> Segment:
        tokens = window.tokens[span.first : span.last]
        offset = self.seek * SECONDS_PER_FRAME
        spoken = None
        if times is not None:
            spoken = self._words(window, span, decode, times, offset)
        return Segment(
            start=round(offset + span.start_frame * SECONDS_PER_FRAME, 2),
            end=round(offset + span.end_frame * SECONDS_PER_FRAME, 2),
            text=decode(self._text_tokens(tokens)).strip(),
            tokens=tokens,
            temperature=window.temperature,
            avg_logprob=window.avg_logprob,
            compression_ratio=window.compression_ratio,
            no_speech_prob=window.no_speech_prob,
            words=spoken,
        )

    def _words(
        self,
        window: DecodedWindow,
        span: Span,
        decode: words.Decode,
        times: np.ndarray,
        offset: float,
    ) -> tuple[segments.Word, ...]:
        places = [
            place
            for place in range(span.first, span.last)
            if window.tokens[place] < self._prompts.end_of_text
        ]
        text_tokens = [window.tokens[place] for place in places]
        ends = np.concatenate([[0.0], times])
        probabilities = np.exp(window.log_probabilities)
        written = "en" if self._prompts.is_translation else self.language
        return tuple(
            segments.Word(
                word=word.word,
                start=round(offset + float(ends[places[word.first]]), 2),
                end=round(offset + float(ends[places[word.last - 1] + 1]), 2),
                probability=float(np.mean(probabilities[places[word.first : word.last]])),
            )
            for word in words.split_words(text_tokens, decode, written)
        )

    def _text_tokens(self, tokens: Sequence[int]) -> list[int]:
        return [token for token in tokens if token < self._prompts.end_of_text]

    def transcript(self) -> Transcript:
        """What has been written, once the recording is done."""
        return Transcript(
            language=self.language,
            duration=round(self.recording.seconds, 3),
            segments=tuple(self.segments),
            is_translated=self._prompts.is_translation,
        )
