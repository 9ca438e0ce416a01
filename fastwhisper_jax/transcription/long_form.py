"""Many recordings of any length through one model, some at a time.

A recording's windows follow each other: where one starts, and what its prompt holds, is known only
when the one before is decoded. So a batch takes one window of each of several recordings; a
recording that is done gives its place, its lane, to the next one.
"""

import dataclasses
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastwhisper_jax.transcription.fallback import (
    DecodedWindow,
    Thresholds,
    compression_ratio,
    needs_fallback,
)
from fastwhisper_jax.transcription.lane import Lane, Prompts, Recording
from fastwhisper_jax.transcription.model import WindowModel
from fastwhisper_jax.transcription.segments import Transcript
from fastwhisper_jax.transcription.word_timestamps import token_times
from fastwhisper_jax.transcription.words import Decode


@dataclasses.dataclass(frozen=True)
class LongForm:
    """How recordings are transcribed.

    Attributes:
        prompts: the tokens of prompts.
        thresholds: when a window is decoded again.
        lanes: B, recordings at a time.
        window_frames: L, mel frames of a window.
        decode: text tokens to text.
        max_new_tokens: the most tokens a window.
        word_timestamps: whether words get their own times.
        on_progress: told the seconds of audio that each window moved on by.
    """

    prompts: Prompts
    thresholds: Thresholds
    lanes: int
    window_frames: int
    decode: Decode
    max_new_tokens: int
    word_timestamps: bool = False
    on_progress: Callable[[float], None] = lambda seconds: None


def transcribe_recordings(
    recordings: Iterator[tuple[int, Recording, str | None]], model: WindowModel, how: LongForm
) -> Iterator[tuple[int, Transcript]]:
    """Transcribes recordings, each yielded as soon as it is done, with its number.

    A recording is opened when a lane is free, and closed when it is done; the result does not
    depend on which others are decoded beside it.

    Args:
        recordings: a number of any kind, the recording, and the code of its language; None detects
            it in the first window.
        model: what is asked.
        how: to transcribe.

    Source: openai/whisper `transcribe.py`.
    """
    lanes: list[Lane | None] = [None] * how.lanes
    try:
        while True:
            # Whoever is in a lane has a window left to decode.
            for place in range(how.lanes):
                while lanes[place] is None and (opened := next(recordings, None)) is not None:
                    lane = Lane(*opened, how.prompts, how.window_frames)
                    if lane.is_done:  # not a single frame
                        lane.recording.close()
                        yield lane.index, lane.transcript()
                    else:
                        lanes[place] = lane
            if not any(lanes):
                return
            _decode_round(lanes, model, how)
            for place, current in enumerate(lanes):
                if current is not None and current.is_done:
                    lanes[place] = None
                    current.recording.close()
                    yield current.index, current.transcript()
    finally:
        for left in lanes:
            if left is not None:
                left.recording.close()


def _decode_round(lanes: list[Lane | None], model: WindowModel, how: LongForm) -> None:
    """Decodes the next window of every lane."""
    taken = {place: lane for place, lane in enumerate(lanes) if lane is not None}
    windows = {place: lane.recording.window(lane.seek) for place, lane in taken.items()}
    silence = np.zeros_like(next(iter(windows.values())))
    hidden = model.encode(np.stack([windows.get(i, silence) for i in range(len(lanes))]))
    codes = tuple(how.prompts.languages)
    if codes and any(lane.language is None for lane in taken.values()):
        found = model.detect_language(hidden)
        for place, lane in taken.items():
            lane.language = lane.language or codes[found[place]]
    decoded = _decode_with_fallback(hidden, taken, model, how)
    for place, lane in taken.items():
        window = decoded[place]
        times = None
        if how.word_timestamps:
            times = _token_times(hidden, place, lane, window, model, how)
        before = lane.seek
        lane.accept(window, how.thresholds, how.decode, times)
        how.on_progress((min(lane.seek, lane.recording.frames) - before) / 100)


def _decode_with_fallback(
    hidden: Any, taken: dict[int, Lane], model: WindowModel, how: LongForm
) -> dict[int, DecodedWindow]:
    """Decodes every window; those that fail again, at one temperature after the other."""
    prompts = {place: lane.prompt() for place, lane in taken.items()}
    # Two widths only, so that nothing is compiled more than twice for a batch size.
    width = shortest = min(len(lane.start_tokens) for lane in taken.values())
    if max(map(len, prompts.values())) > shortest:
        width = shortest + 1 + how.prompts.most_previous
    prompt = np.full((how.lanes, width), how.prompts.end_of_text, np.int32)
    lengths = np.full((how.lanes,), shortest, np.int32)
    for place, given in prompts.items():
        prompt[place, : len(given)] = given
        lengths[place] = len(given)
    decoded: dict[int, DecodedWindow] = {}
    failed = set(taken)
    for attempt, temperature in enumerate(how.thresholds.temperatures):
        temperatures = np.full((how.lanes,), temperature, np.float32)
        seeds = np.zeros((how.lanes,), np.uint32)
        for place in failed:
            seeds[place] = _seed(taken[place], attempt)
        row_mask = np.array([place in failed for place in range(how.lanes)])
        found = model.decode(hidden, prompt, lengths, temperatures, seeds, row_mask)
        for place in failed:
            count = int(found.counts[place])
            tokens = tuple(found.tokens[place, :count].tolist())
            text = how.decode([token for token in tokens if token < how.prompts.end_of_text])
            decoded[place] = DecodedWindow(
                tokens=tokens,
                log_probabilities=tuple(found.log_probabilities[place, :count].tolist()),
                text=text,
                avg_logprob=float(found.log_probabilities[place].sum()) / (count + 1),
                compression_ratio=compression_ratio(text.strip()),
                no_speech_prob=float(found.no_speech[place]),
                temperature=temperature,
            )
        failed = {place for place in failed if needs_fallback(decoded[place], how.thresholds)}
        if not failed:
            break
    return decoded


def _seed(lane: Lane, attempt: int) -> int:
    """Another one for each window and attempt, whatever else is in the batch."""
    return zlib.crc32(f"{lane.recording.frames} {lane.seek} {attempt}".encode())


def _token_times(
    hidden: Any, place: int, lane: Lane, window: DecodedWindow, model: WindowModel, how: LongForm
) -> np.ndarray:
    """The end of each token of a window in seconds from the window's start: (T,).

    The decoder reads the window's own tokens again, without previous text.
    """
    start = lane.start_tokens
    tokens = [*start, *window.tokens]
    # The same width at each call, so that one is compiled.
    padded = np.full((len(start) + how.max_new_tokens,), how.prompts.end_of_text, np.int32)
    padded[: len(tokens)] = tokens
    attention = model.attend(hidden, place, padded)
    return token_times(attention[:, len(start) : len(tokens), : max(lane.frames // 2, 1)])
