"""Recordings and a model whose replies are written down, for tests of the long-form loop."""

import dataclasses

import numpy as np

from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.decoding.fallback import Thresholds
from fastwhisper_jax.transcription.long_form import LongFormSettings
from fastwhisper_jax.transcription.prompt_format import PromptFormat
from fastwhisper_jax.transcription.window_model import WindowModel, WindowTokens

END_OF_TEXT, START, EN, ES, TASK, PREVIOUS, BEGIN = 50, 51, 52, 53, 54, 55, 60
FORMAT = PromptFormat(
    languages={"en": EN, "es": ES},
    start=START,
    after_language=(TASK,),
    previous=PREVIOUS,
    most_previous=6,
    timestamp_begin=BEGIN,
    end_of_text=END_OF_TEXT,
)
SETTINGS = LongFormSettings(
    prompt_format=FORMAT,
    thresholds=Thresholds(),
    slots=2,
    windows=Windows((30.0,)),
    decode=lambda tokens: " ".join(f"w{token}" for token in tokens),
    max_new_tokens=12,
)


def at(seconds):
    return BEGIN + round(seconds / 0.02)


@dataclasses.dataclass
class FakeRecording:
    index: int
    frames: int
    closed: bool = False

    @property
    def seconds(self):
        return self.frames / 100

    def window(self, start_frame):
        assert 0 <= start_frame < self.frames and not self.closed
        return np.full((2, 2), [self.index + 1, start_frame], np.float32)

    def close(self):
        self.closed = True


@dataclasses.dataclass(frozen=True)
class Reply:
    tokens: tuple = ()
    avg_logprob: float = -0.1
    no_speech: float = 0.0


class FakeModel:
    """Replies by (recording, start frame, temperature), and records what it was asked."""

    def __init__(self, script, languages=()):
        self.script, self.languages = script, languages
        self.asked = []
        self.batches = []
        self.seeds = {}

    def as_model(self):
        return WindowModel(lambda x: x, self.detect, self.decode, self.attend)

    def detect(self, encoder_states):
        return np.array([self.languages[max(int(row[0, 0]) - 1, 0)] for row in encoder_states])

    def decode(self, encoder_states, prompts):
        self.batches.append(prompts.tokens.shape)
        tokens = np.full((len(encoder_states), 12), END_OF_TEXT, np.int32)
        log_probs = np.zeros((len(encoder_states), 12), np.float32)
        counts, no_speech = np.zeros(len(encoder_states), int), np.zeros(len(encoder_states))
        for row in np.flatnonzero(prompts.row_mask):
            index, start = encoder_states[row][0].astype(int)
            temperature = round(float(prompts.temperatures[row]), 1)
            given = prompts.tokens[row, : prompts.lengths[row]].tolist()
            self.asked.append((index - 1, start, temperature, given))
            self.seeds[index - 1, start, temperature] = int(prompts.seeds[row])
            reply = self.script[index - 1, start, temperature]
            counts[row] = len(reply.tokens)
            tokens[row, : counts[row]] = reply.tokens
            log_probs[row, 0] = reply.avg_logprob * (counts[row] + 1)
            no_speech[row] = reply.no_speech
        return WindowTokens(tokens, log_probs, counts, no_speech)

    def attend(self, encoder_states, row, tokens):
        """Each token of the window attends to a second of its own."""
        attention = np.full((1, len(tokens), 1500), 1e-3)
        for index in range(len(tokens)):
            attention[:, index, 50 * (index - 3) : 50 * (index - 2)] = 1.0
        return attention


def times(transcript):
    return [(segment.start, segment.end, segment.text) for segment in transcript.segments]
