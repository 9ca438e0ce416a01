"""A tiny model with timestamps, and prompts of different lengths, for tests of decoding."""

import jax
import numpy as np

from fastwhisper_jax.decoding.prefill import Prompts, WhisperModel
from fastwhisper_jax.decoding.rules import DecodingRules
from fastwhisper_jax.decoding.timestamps import TimestampRules
from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions

DIMS = ModelDimensions(
    n_mels=8,
    n_audio_ctx=10,
    n_audio_head=2,
    n_audio_layer=1,
    n_audio_mlp=16,
    n_vocab=60,
    n_text_ctx=24,
    n_text_head=2,
    n_text_layer=2,
    n_text_mlp=32,
    n_state=16,
)
OPTIONS = ModelOptions()
END_OF_TEXT, START, NO_SPEECH, NO_TIMESTAMPS = 30, 31, 36, 37
PLAIN = DecodingRules(
    END_OF_TEXT, suppress=(3, 31, 32, 33, 34, 35, 36), begin_suppress=(4,), timestamps=None
)
RULES = DecodingRules(
    PLAIN.end_of_text,
    PLAIN.suppress,
    PLAIN.begin_suppress,
    TimestampRules(END_OF_TEXT, NO_TIMESTAMPS, last_timestamp=10),
)
START_LENGTH, MAX_NEW_TOKENS = 2, 12
PROMPTS = ([START, 32], [33, 40, 5, 6, 45, START, 32], [33, 7, START, 32])


def make_params(scale=4.0):
    """Larger than at the start of training, so that the emitted tokens vary."""
    random = jax.jit(whisper.init_params, static_argnums=0)(DIMS, jax.random.key(0))
    return jax.tree.map(lambda x: scale * np.asarray(x), random)


def make_encoder_states():
    return np.asarray(
        jax.random.normal(jax.random.key(1), (len(PROMPTS), DIMS.n_audio_ctx, DIMS.n_state))
    )


def tiny_model(params):
    return WhisperModel(params, DIMS, OPTIONS)


def make_prompts(prompts=PROMPTS, rows=None):
    """Prompts as arrays: tokens, lengths, row mask."""
    width = max(map(len, prompts))
    tokens = np.array([[*p, *[END_OF_TEXT] * (width - len(p))] for p in prompts], np.int32)
    lengths = np.array([len(p) for p in prompts], np.int32)
    return tokens, lengths, np.ones(len(prompts), bool) if rows is None else np.array(rows)


def with_start(tokens, lengths, row_mask):
    """The arrays of `make_prompts` as decoding takes them."""
    return Prompts(tokens, lengths, START_LENGTH, row_mask)


@jax.jit
def logits_of(params, tokens, encoder_states):
    """Uncached: after every token."""
    return whisper.logits(params, whisper.decode(params, DIMS, tokens, encoder_states, OPTIONS))
