"""Long-form transcription: many recordings of any length through one model, some at a time.

The windows of a recording depend on each other: where one starts, and what its prompt holds, is
known only after the one before is decoded. So a batch takes one window from each of several
recordings. Each of these has a slot; when it is done, the next recording gets its slot.
"""

import dataclasses
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastwhisper_jax.audio.constants import SECONDS_PER_FRAME
from fastwhisper_jax.audio.windows import Windows, window_frames
from fastwhisper_jax.decoding.fallback import (
    DecodedWindow,
    Thresholds,
    compression_ratio,
    needs_fallback,
)
from fastwhisper_jax.transcription.prompt_format import PromptFormat
from fastwhisper_jax.transcription.segments import Transcript
from fastwhisper_jax.transcription.slot import Recording, Slot
from fastwhisper_jax.transcription.window_model import WindowModel, WindowPrompts, WindowTokens
from fastwhisper_jax.transcription.word_timestamps import token_times
from fastwhisper_jax.transcription.words import Decode


@dataclasses.dataclass(frozen=True)
class LongFormSettings:
    """How recordings are transcribed.

    Attributes:
        prompt_format: the tokens of prompts.
        thresholds: when a window is decoded again.
        slots: B, how many recordings are transcribed at a time.
        windows: the model's windows. What is left of a recording goes to the shortest that holds
            it.
        decode: text tokens to text.
        max_new_tokens: the most tokens a window.
        word_timestamps: whether words get their own times.
        on_progress: told how many seconds of audio each window has moved on.
    """

    prompt_format: PromptFormat
    thresholds: Thresholds
    slots: int
    windows: Windows
    decode: Decode
    max_new_tokens: int
    word_timestamps: bool = False
    on_progress: Callable[[float], None] = lambda seconds: None


def transcribe_recordings(
    recordings: Iterator[tuple[int, Recording, str | None]],
    model: WindowModel,
    settings: LongFormSettings,
) -> Iterator[tuple[int, Transcript]]:
    """Transcribes recordings, and yields each with its number as soon as it is done.

    A recording is opened when a slot is free, and closed when it is done. Its transcript does not
    depend on the other recordings in the batch.

    Args:
        recordings: a number of any kind, the recording, and the code of its language; None detects
            the language in the first window.
        model: the model.
        settings: how to transcribe.

    Source: openai/whisper `transcribe.py`.
    """
    slots: list[Slot | None] = [None] * settings.slots
    longest = window_frames(settings.windows.longest)
    try:
        while True:
            for row in range(settings.slots):
                while slots[row] is None and (opened := next(recordings, None)) is not None:
                    slot = Slot(*opened, settings.prompt_format, longest)
                    if slot.is_done:  # the recording has no frames
                        slot.recording.close()
                        yield slot.index, slot.transcript()
                    else:
                        slots[row] = slot
            if not any(slots):
                return
            _decode_round(slots, model, settings)
            for row, current in enumerate(slots):
                if current is not None and current.is_done:
                    slots[row] = None
                    current.recording.close()
                    yield current.index, current.transcript()
    finally:
        for unfinished in slots:
            if unfinished is not None:
                unfinished.recording.close()


def _decode_round(slots: list[Slot | None], model: WindowModel, settings: LongFormSettings) -> None:
    """Decodes the next windows of the slots whose windows are of one length.

    The length is the one that most slots need. The others wait for a round of theirs.
    """
    lengths = {
        row: settings.windows.shortest_for(slot.frames * SECONDS_PER_FRAME)
        for row, slot in enumerate(slots)
        if slot is not None
    }
    counts = Counter(lengths.values())
    length = max(counts, key=lambda seconds: (counts[seconds], seconds))
    active = {row: slot for row, slot in enumerate(slots) if slot and lengths[row] == length}
    frames = window_frames(length)
    windows = {row: slot.recording.window(slot.seek)[:frames] for row, slot in active.items()}
    silence = np.zeros_like(next(iter(windows.values())))
    batch = np.stack([windows.get(row, silence) for row in range(len(slots))])
    encoder_states = model.encode(batch)
    codes = tuple(settings.prompt_format.languages)
    if codes and any(slot.language is None for slot in active.values()):
        detected = model.detect_language(encoder_states)
        for row, slot in active.items():
            slot.language = slot.language or codes[detected[row]]
    decoded = _decode_with_fallback(encoder_states, active, model, settings)
    for row, slot in active.items():
        times = None
        if settings.word_timestamps:
            times = _token_times(encoder_states, row, slot, decoded[row], model, settings)
        before = slot.seek
        slot.accept(decoded[row], settings.thresholds, settings.decode, times)
        moved = min(slot.seek, slot.recording.frames) - before
        settings.on_progress(moved * SECONDS_PER_FRAME)


def _decode_with_fallback(
    encoder_states: Any, active: dict[int, Slot], model: WindowModel, settings: LongFormSettings
) -> dict[int, DecodedWindow]:
    """Decodes every window, and those that fail again, at one temperature after the other."""
    prompt, lengths = _padded_prompts(active, settings)
    decoded: dict[int, DecodedWindow] = {}
    failed = set(active)
    for attempt, temperature in enumerate(settings.thresholds.temperatures):
        seeds = np.zeros((settings.slots,), np.uint32)
        for row in failed:
            seeds[row] = _seed(active[row], attempt)
        prompts = WindowPrompts(
            tokens=prompt,
            lengths=lengths,
            temperatures=np.full((settings.slots,), temperature, np.float32),
            seeds=seeds,
            row_mask=np.array([row in failed for row in range(settings.slots)]),
        )
        emitted = model.decode(encoder_states, prompts)
        decoded |= {row: _decoded_window(emitted, row, temperature, settings) for row in failed}
        failed = {row for row in failed if needs_fallback(decoded[row], settings.thresholds)}
        if not failed:
            break
    return decoded


def _padded_prompts(
    active: dict[int, Slot], settings: LongFormSettings
) -> tuple[np.ndarray, np.ndarray]:
    """The prompts of all slots, (B, P) int32, and their lengths, (B,) int32."""
    prompts = {row: slot.prompt() for row, slot in active.items()}
    # There are only two widths P, so that a batch size compiles at most twice.
    shortest = min(len(slot.start_tokens) for slot in active.values())
    is_wide = max(map(len, prompts.values())) > shortest
    width = shortest + is_wide * (1 + settings.prompt_format.most_previous)
    tokens = np.full((settings.slots, width), settings.prompt_format.end_of_text, np.int32)
    lengths = np.full((settings.slots,), shortest, np.int32)
    for row, prompt in prompts.items():
        tokens[row, : len(prompt)] = prompt
        lengths[row] = len(prompt)
    return tokens, lengths


def _decoded_window(
    emitted: WindowTokens, row: int, temperature: float, settings: LongFormSettings
) -> DecodedWindow:
    """One row of a decoded batch, with the numbers by which it is judged."""
    count = int(emitted.counts[row])
    tokens = tuple(emitted.tokens[row, :count].tolist())
    end_of_text = settings.prompt_format.end_of_text
    text = settings.decode([token for token in tokens if token < end_of_text])
    return DecodedWindow(
        tokens=tokens,
        log_probs=tuple(emitted.log_probs[row, :count].tolist()),
        text=text,
        avg_logprob=float(emitted.log_probs[row].sum()) / (count + 1),
        compression_ratio=compression_ratio(text.strip()),
        no_speech_prob=float(emitted.no_speech[row]),
        temperature=temperature,
    )


def _seed(slot: Slot, attempt: int) -> int:
    """A seed that differs for each window and attempt, whatever else is in the batch."""
    return zlib.crc32(f"{slot.recording.frames} {slot.seek} {attempt}".encode())


def _token_times(
    encoder_states: Any,
    row: int,
    slot: Slot,
    window: DecodedWindow,
    model: WindowModel,
    settings: LongFormSettings,
) -> np.ndarray:
    """The end of each token of a window, in seconds from the window's start: (T,).

    The decoder reads the window's own tokens again, without previous text.
    """
    start = slot.start_tokens
    tokens = [*start, *window.tokens]
    # All calls have the same width, so that only one is compiled.
    width = len(start) + settings.max_new_tokens
    padded = np.full((width,), settings.prompt_format.end_of_text, np.int32)
    padded[: len(tokens)] = tokens
    attention = model.attend(encoder_states, row, padded)
    return token_times(attention[:, len(start) : len(tokens), : max(slot.frames // 2, 1)])
