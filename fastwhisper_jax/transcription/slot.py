"""One recording on its way through the model: how far it is, and the segments so far."""

from typing import Protocol

import numpy as np

from fastwhisper_jax.audio.constants import SECONDS_PER_FRAME
from fastwhisper_jax.decoding.fallback import DecodedWindow, Thresholds, is_silent
from fastwhisper_jax.transcription.prompt_format import PromptFormat
from fastwhisper_jax.transcription.segments import Segment, Span, Transcript, Word, split_window
from fastwhisper_jax.transcription.words import Decode, split_words

# The next window's prompt does not hold text that needed a higher temperature: it is often wrong,
# and the model would continue it.
HIGHEST_TRUSTED_TEMPERATURE = 0.5


class Recording(Protocol):
    """Log-mel features of a whole recording."""

    @property
    def frames(self) -> int:
        """How many mel frames the recording has."""
        ...

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        ...

    def window(self, start_frame: int) -> np.ndarray:
        """(L, M) float32: the window from `start_frame` on, padded after the recording's end."""
        ...

    def close(self) -> None:
        """Frees its memory and files."""
        ...


class Slot:
    """A recording, the frame at which its next window starts, and its segments so far.

    Invariant: everything before `seek` is transcribed. `segments` holds its text, and `_history`
    the latest tokens of it, which the next prompt shows.
    """

    def __init__(
        self,
        index: int,
        recording: Recording,
        language: str | None,
        prompt_format: PromptFormat,
        window_frames: int,
    ) -> None:
        self.index = index
        self.recording = recording
        self.language = language
        self.seek = 0
        self.segments: list[Segment] = []
        self._format = prompt_format
        self._window_frames = window_frames
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
        """The tokens right before a window's text, without previous text."""
        return self._format.start_tokens(self.language)

    def prompt(self) -> list[int]:
        """The tokens that the decoder is given for the next window."""
        start = list(self.start_tokens)
        most = self._format.most_previous
        if not most or not self._history:
            return start
        return [self._format.previous, *self._history[-most:], *start]

    def accept(
        self,
        window: DecodedWindow,
        thresholds: Thresholds,
        decode: Decode,
        times: np.ndarray | None,
    ) -> None:
        """Adds the segments of the next window, and moves on.

        Args:
            window: the decoded window.
            thresholds: say when a window is silent.
            decode: text tokens to text.
            times: (T,) end of each token in seconds; None where words get no times.
        """
        if is_silent(window, thresholds):
            self.seek += self.frames
            return
        begin = self._format.timestamp_begin
        spans, advance = split_window(window.tokens, begin, self.frames)
        for span in spans:
            segment = self._segment(window, span, decode, times)
            if segment.text and span.start_frame < span.end_frame:
                self.segments.append(segment)
                self._history.extend(segment.tokens)
        if window.temperature > HIGHEST_TRUSTED_TEMPERATURE:
            self._history.clear()
        # Prompts hold only the latest tokens.
        del self._history[: -self._format.most_previous or None]
        self.seek += advance

    def _segment(
        self,
        window: DecodedWindow,
        span: Span,
        decode: Decode,
        times: np.ndarray | None,
    ) -> Segment:
        tokens = window.tokens[span.first : span.last]
        offset = self.seek * SECONDS_PER_FRAME
        words = None if times is None else self._words(window, span, decode, times, offset)
        return Segment(
            start=round(offset + span.start_frame * SECONDS_PER_FRAME, 2),
            end=round(offset + span.end_frame * SECONDS_PER_FRAME, 2),
            text=decode([token for token in tokens if token < self._format.end_of_text]).strip(),
            tokens=tokens,
            temperature=window.temperature,
            avg_logprob=window.avg_logprob,
            compression_ratio=window.compression_ratio,
            no_speech_prob=window.no_speech_prob,
            words=words,
        )

    def _words(
        self,
        window: DecodedWindow,
        span: Span,
        decode: Decode,
        times: np.ndarray,
        offset: float,
    ) -> tuple[Word, ...]:
        indices = [
            index
            for index in range(span.first, span.last)
            if window.tokens[index] < self._format.end_of_text
        ]
        text_tokens = [window.tokens[index] for index in indices]
        # A token starts where the one before it ends.
        bounds = np.concatenate([[0.0], times])
        probabilities = np.exp(window.log_probs)
        written_language = "en" if self._format.is_translation else self.language
        return tuple(
            Word(
                word=word.word,
                start=round(offset + float(bounds[indices[word.first]]), 2),
                end=round(offset + float(bounds[indices[word.last - 1] + 1]), 2),
                probability=float(np.mean(probabilities[indices[word.first : word.last]])),
            )
            for word in split_words(text_tokens, decode, written_language)
        )

    def transcript(self) -> Transcript:
        """The transcript, once the recording is done."""
        return Transcript(
            language=self.language,
            duration=round(self.recording.seconds, 3),
            segments=tuple(self.segments),
            is_translated=self._format.is_translation,
        )
