"""Many recordings of any length through one model, some at a time.

A recording's windows follow each other: where one starts, and what its prompt holds, is known only
when the one before is decoded. So a batch takes one window of each of several recordings; a
recording that is done gives its place, its slot, to the next one.
"""

import dataclasses
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastwhisper_jax.audio.constants import SECONDS_PER_FRAME
from fastwhisper_jax.decoding.fallback import (
    DecodedWindow,
    Thresholds,
    compression_ratio,
    needs_fallback,
)
from fastwhisper_jax.transcription.segments import Transcript
from fastwhisper_jax.transcription.slot import Prompts, Recording, Slot
from fastwhisper_jax.transcription.window_model import WindowModel
from fastwhisper_jax.transcription.word_timestamps import token_times
from fastwhisper_jax.transcription.words import Decode


@dataclasses.dataclass(frozen=True)
class LongForm:
    """How recordings are transcribed.

    Attributes:
        prompts: the tokens of prompts.
        thresholds: when a window is decoded again.
        slots: B, recordings at a time.
        window_frames: L, mel frames of a window.
        decode: text tokens to text.
        max_new_tokens: the most tokens a window.
        word_timestamps: whether words get their own times.
        on_progress: told the seconds of audio that each window moved on by.
    """

    prompts: Prompts
    thresholds: Thresholds
    slots: int
    window_frames: int
    decode: Decode
    max_new_tokens: int
    word_timestamps: bool = False
    on_progress: Callable[[float], None] = lambda seconds: None


def transcribe_recordings(
    recordings: Iterator[tuple[int, Recording, str | None]], model: WindowModel, how: LongForm
) -> Iterator[tuple[int, Transcript]]:
    """Transcribes recordings, each yielded as soon as it is done, with its number.

    A recording is opened when a slot is free, and closed when it is done; the result does not
    depend on which others are decoded beside it.

    Args:
        recordings: a number of any kind, the recording, and the code of its language; None detects
            it in the first window.
        model: what is asked.
        how: to transcribe.

    Source: openai/whisper `transcribe.py`.
    """
    slots: list[Slot | None] = [None] * how.slots
    try:
        while True:
            # Whoever is in a slot has a window left to decode.
            for place in range(how.slots):
                while slots[place] is None and (opened := next(recordings, None)) is not None:
                    slot = Slot(*opened, how.prompts, how.window_frames)
                    if slot.is_done:  # not a single frame
                        slot.recording.close()
                        yield slot.index, slot.transcript()
                    else:
                        slots[place] = slot
            if not any(slots):
                return
            _decode_round(slots, model, how)
            for place, current in enumerate(slots):
                if current is not None and current.is_done:
                    slots[place] = None
                    current.recording.close()
                    yield current.index, current.transcript()
    finally:
        for left in slots:
            if left is not None:
                left.recording.close()


def _decode_round(slots: list[Slot | None], model: WindowModel, how: LongForm) -> None:
    """Decodes the next window of every slot."""
    taken = {place: slot for place, slot in enumerate(slots) if slot is not None}
    windows = {place: slot.recording.window(slot.seek) for place, slot in taken.items()}
    silence = np.zeros_like(next(iter(windows.values())))
    encoder_states = model.encode(np.stack([windows.get(i, silence) for i in range(len(slots))]))
    codes = tuple(how.prompts.languages)
    if codes and any(slot.language is None for slot in taken.values()):
        found = model.detect_language(encoder_states)
        for place, slot in taken.items():
            slot.language = slot.language or codes[found[place]]
    decoded = _decode_with_fallback(encoder_states, taken, model, how)
    for place, slot in taken.items():
        window = decoded[place]
        times = None
        if how.word_timestamps:
            times = _token_times(encoder_states, place, slot, window, model, how)
        before = slot.seek
        slot.accept(window, how.thresholds, how.decode, times)
        how.on_progress((min(slot.seek, slot.recording.frames) - before) * SECONDS_PER_FRAME)


def _decode_with_fallback(
    encoder_states: Any, taken: dict[int, Slot], model: WindowModel, how: LongForm
) -> dict[int, DecodedWindow]:
    """Decodes every window; those that fail again, at one temperature after the other."""
    prompts = {place: slot.prompt() for place, slot in taken.items()}
    # Two widths only, so that nothing is compiled more than twice for a batch size.
    width = shortest = min(len(slot.start_tokens) for slot in taken.values())
    if max(map(len, prompts.values())) > shortest:
        width = shortest + 1 + how.prompts.most_previous
    prompt = np.full((how.slots, width), how.prompts.end_of_text, np.int32)
    lengths = np.full((how.slots,), shortest, np.int32)
    for place, given in prompts.items():
        prompt[place, : len(given)] = given
        lengths[place] = len(given)
    decoded: dict[int, DecodedWindow] = {}
    failed = set(taken)
    for attempt, temperature in enumerate(how.thresholds.temperatures):
        temperatures = np.full((how.slots,), temperature, np.float32)
        seeds = np.zeros((how.slots,), np.uint32)
        for place in failed:
            seeds[place] = _seed(taken[place], attempt)
        row_mask = np.array([place in failed for place in range(how.slots)])
        found = model.decode(encoder_states, prompt, lengths, temperatures, seeds, row_mask)
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


def _seed(slot: Slot, attempt: int) -> int:
    """Another one for each window and attempt, whatever else is in the batch."""
    return zlib.crc32(f"{slot.recording.frames} {slot.seek} {attempt}".encode())


def _token_times(
    encoder_states: Any,
    place: int,
    slot: Slot,
    window: DecodedWindow,
    model: WindowModel,
    how: LongForm,
) -> np.ndarray:
    """The end of each token of a window in seconds from the window's start: (T,).

    The decoder reads the window's own tokens again, without previous text.
    """
    start = slot.start_tokens
    tokens = [*start, *window.tokens]
    # The same width at each call, so that one is compiled.
    padded = np.full((len(start) + how.max_new_tokens,), how.prompts.end_of_text, np.int32)
    padded[: len(tokens)] = tokens
    attention = model.attend(encoder_states, place, padded)
    return token_times(attention[:, len(start) : len(tokens), : max(slot.frames // 2, 1)])
