import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastwhisper_jax.decoding.language import detect_language
from fastwhisper_jax.decoding.rules import DecodingRules
from fastwhisper_jax.decoding.timestamps import TimestampRules, apply_timestamp_rules
from fastwhisper_jax.decoding.windows import WindowRules, decode_windows
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
END_OF_TEXT, START, NO_SPEECH, NO_TIMESTAMPS = 30, 31, 36, 37
RULES = WindowRules(
    decoding=DecodingRules(END_OF_TEXT, suppress=(3, 31, 32, 33, 34, 35, 36), begin_suppress=(4,)),
    timestamps=TimestampRules(END_OF_TEXT, NO_TIMESTAMPS, last_timestamp=10),
    no_speech=NO_SPEECH,
    start_tokens=2,
    max_new_tokens=12,
)
PLAIN = dataclasses.replace(RULES, timestamps=None)
PROMPTS = ([START, 32], [33, 40, 5, 6, 45, START, 32], [33, 7, START, 32])
OPTIONS = ModelOptions()


@pytest.fixture(scope="module")
def params():
    random = jax.jit(whisper.init_params, static_argnums=0)(DIMS, jax.random.key(0))
    return jax.tree.map(lambda x: 4.0 * x, random)


@pytest.fixture(scope="module")
def encoder_states():
    return jax.random.normal(jax.random.key(1), (3, DIMS.n_audio_ctx, DIMS.n_state))


@functools.partial(jax.jit, static_argnames="rules")
def jitted(params, rules, *arrays):
    return decode_windows(params, DIMS, OPTIONS, rules, *arrays)


def decode(params, encoder_states, rules, prompts=PROMPTS, temperature=0.0, rows=None, seed=0):
    width = max(map(len, prompts))
    prompt = np.array([[*p, *[END_OF_TEXT] * (width - len(p))] for p in prompts], np.int32)
    lengths = np.array([len(p) for p in prompts], np.int32)
    temperatures = np.full(len(prompts), temperature, np.float32)
    keys = jax.vmap(jax.random.key)(jnp.arange(len(prompts), dtype=jnp.uint32) + seed)
    rows = np.ones(len(prompts), bool) if rows is None else np.array(rows)
    found = jitted(params, rules, encoder_states, prompt, lengths, temperatures, keys, rows)
    return jax.tree.map(np.asarray, found)


@jax.jit
def logits_of(params, tokens, encoder_states):
    return whisper.logits(params, whisper.decode(params, DIMS, tokens, encoder_states, OPTIONS))


def decode_by_teacher_forcing(params, encoder_states, rules, prompt):
    """One row, the whole sequence anew for each token."""
    sequence, log_probabilities = [], []
    emitted = np.full((1, DIMS.n_text_ctx), END_OF_TEXT, np.int32)
    limit = min(rules.max_new_tokens, DIMS.n_text_ctx - len(prompt))
    for place in range(limit):
        fed = [*prompt, *sequence]
        padded = np.array([[*fed, *[0] * (DIMS.n_text_ctx - len(fed))]], np.int32)
        logits = logits_of(params, padded, encoder_states)[:, len(fed) - 1]
        banned = rules.decoding.banned_first if place == 0 else rules.decoding.banned
        logits = logits + jnp.asarray(banned(DIMS.n_vocab))[None]
        if rules.timestamps:
            logits = apply_timestamp_rules(logits, rules.timestamps, emitted, place)
        token = int(jnp.argmax(logits[0]))
        log_probabilities.append(float(jax.nn.log_softmax(logits[0])[token]))
        if token == END_OF_TEXT:
            break
        emitted[0, place] = token
        sequence.append(token)
    return sequence, log_probabilities


@pytest.mark.parametrize("rules", [RULES, PLAIN], ids=["timestamps", "plain"])
def test_prompts_of_any_length_decode_as_by_teacher_forcing(params, encoder_states, rules):
    found = decode(params, encoder_states, rules)
    for row, prompt in enumerate(PROMPTS):
        tokens, expected = decode_by_teacher_forcing(
            params, encoder_states[row][None], rules, prompt
        )
        assert found.counts[row] == len(tokens)
        assert found.tokens[row, : len(tokens)].tolist() == tokens
        assert (found.tokens[row, len(tokens) :] == END_OF_TEXT).all()
        ours = found.log_probabilities[row]
        np.testing.assert_allclose(ours[: len(expected)], expected, atol=1e-4)
        np.testing.assert_array_equal(ours[len(expected) :], 0.0)


def test_no_speech_is_read_at_the_start_of_the_transcript(params, encoder_states):
    found = decode(params, encoder_states, RULES)
    for row, prompt in enumerate(PROMPTS):
        tokens = np.array([[*prompt, *[0] * (DIMS.n_text_ctx - len(prompt))]], np.int32)
        place = prompt.index(START)
        chances = jax.nn.softmax(logits_of(params, tokens, encoder_states[row][None])[0, place])
        np.testing.assert_allclose(found.no_speech[row], chances[NO_SPEECH], rtol=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_row_does_not_depend_on_the_others(params, encoder_states, temperature):
    together = decode(params, encoder_states, RULES, temperature=temperature)
    alone = decode(
        params, encoder_states, RULES, temperature=temperature, rows=[False, True, False]
    )
    np.testing.assert_array_equal(alone.tokens[1], together.tokens[1])
    assert (alone.tokens[[0, 2]] == END_OF_TEXT).all() and (alone.counts[[0, 2]] == 0).all()


def test_draws_repeat_with_their_seed_and_follow_the_rules(params, encoder_states):
    once, again = (decode(params, encoder_states, RULES, temperature=1.0, seed=5) for _ in range(2))
    np.testing.assert_array_equal(once.tokens, again.tokens)
    other = decode(params, encoder_states, RULES, temperature=1.0, seed=6)
    assert (once.tokens != other.tokens).any()
    assert not np.isin(once.tokens, RULES.decoding.suppress).any()
    assert (once.tokens[:, 0] > NO_TIMESTAMPS).all()
    assert np.isfinite(once.log_probabilities).all()


def test_a_long_prompt_ends_at_the_text_context(params, encoder_states):
    rules = dataclasses.replace(PLAIN, decoding=DecodingRules(END_OF_TEXT, suppress=(END_OF_TEXT,)))
    prompts = ([START, 32], [5] * 16 + [START, 32], [START, 32])
    found = decode(params, encoder_states, rules, prompts)
    assert found.counts.tolist() == [12, 6, 12]


def test_the_language_is_the_likeliest_of_the_language_tokens(params, encoder_states):
    languages = (7, 50, 2)
    found = detect_language(params, DIMS, OPTIONS, encoder_states, START, languages)
    tokens = np.full((3, 1), START, np.int32)
    logits = np.asarray(logits_of(params, tokens, encoder_states))[:, 0]
    assert found.tolist() == logits[:, list(languages)].argmax(1).tolist()
