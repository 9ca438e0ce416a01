"""Greedy decoding of prompts that differ in length, with timestamps and by temperature."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny_decoding as tiny
from support.tiny_decoding import END_OF_TEXT, PLAIN, RULES, START

from fastwhisper_jax.decoding.greedy import Sampling, greedy_decode
from fastwhisper_jax.decoding.prefill import no_speech_probability, prefill
from fastwhisper_jax.decoding.rules import DecodingRules, apply_rules


@pytest.fixture(scope="module")
def params():
    return tiny.make_params()


@pytest.fixture(scope="module")
def encoder_states():
    return tiny.make_encoder_states()


@functools.partial(jax.jit, static_argnames="rules")
def jitted(params, encoder_states, rules, prompts, temperatures, keys):
    start = prefill(
        tiny.tiny_model(params), encoder_states, tiny.with_start(*prompts), tiny.MAX_NEW_TOKENS
    )
    hypotheses = greedy_decode(start, rules, Sampling(temperatures, keys))
    return hypotheses.tokens[:, 0], hypotheses.log_probs[:, 0]


def decode(params, encoder_states, rules, prompts=tiny.PROMPTS, temperature=0.0, rows=None, seed=0):
    """Tokens and log-probabilities, (B, T) each."""
    temperatures = np.full(len(prompts), temperature, np.float32)
    keys = jax.vmap(jax.random.key)(jnp.arange(len(prompts), dtype=jnp.uint32) + seed)
    arrays = tiny.make_prompts(prompts, rows)
    decoded = jitted(params, encoder_states, rules, arrays, temperatures, keys)
    return jax.tree.map(np.asarray, decoded)


def counts(tokens):
    return (tokens != END_OF_TEXT).sum(axis=1).tolist()


def decode_by_teacher_forcing(params, encoder_states, rules, prompt):
    """One row, the whole sequence anew for each token."""
    sequence, log_probs = [], []
    context = tiny.DIMS.n_text_ctx
    emitted = np.full((1, context), END_OF_TEXT, np.int32)
    for step in range(min(tiny.MAX_NEW_TOKENS, context - len(prompt))):
        fed = [*prompt, *sequence]
        padded = np.array([[*fed, *[0] * (context - len(fed))]], np.int32)
        logits = tiny.logits_of(params, padded, encoder_states)[:, len(fed) - 1]
        logits = apply_rules(logits, rules, emitted, step)
        token = int(jnp.argmax(logits[0]))
        log_probs.append(float(jax.nn.log_softmax(logits[0])[token]))
        if token == END_OF_TEXT:
            break
        emitted[0, step] = token
        sequence.append(token)
    return sequence, log_probs


@pytest.mark.parametrize("rules", [RULES, PLAIN], ids=["timestamps", "plain"])
def test_prompts_of_any_length_decode_as_by_teacher_forcing(params, encoder_states, rules):
    emitted, log_probs = decode(params, encoder_states, rules)
    for row, prompt in enumerate(tiny.PROMPTS):
        tokens, expected = decode_by_teacher_forcing(
            params, encoder_states[row][None], rules, prompt
        )
        assert emitted[row, : len(tokens)].tolist() == tokens
        assert (emitted[row, len(tokens) :] == END_OF_TEXT).all()
        np.testing.assert_allclose(log_probs[row, : len(expected)], expected, atol=1e-4)
        np.testing.assert_array_equal(log_probs[row, len(expected) :], 0.0)


def test_no_speech_is_read_at_the_start_of_the_transcript(params, encoder_states):
    @jax.jit
    def no_speech(params, encoder_states, prompts):
        start = prefill(tiny.tiny_model(params), encoder_states, tiny.with_start(*prompts), 1)
        return no_speech_probability(start, tiny.NO_SPEECH)

    probabilities = no_speech(params, encoder_states, tiny.make_prompts())
    for row, prompt in enumerate(tiny.PROMPTS):
        tokens = np.array([[*prompt, *[0] * (tiny.DIMS.n_text_ctx - len(prompt))]], np.int32)
        logits = tiny.logits_of(params, tokens, encoder_states[row][None])
        expected = jax.nn.softmax(logits[0, prompt.index(START)])
        np.testing.assert_allclose(probabilities[row], expected[tiny.NO_SPEECH], rtol=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_row_does_not_depend_on_the_others(params, encoder_states, temperature):
    together, _ = decode(params, encoder_states, RULES, temperature=temperature)
    alone, log_probs = decode(
        params, encoder_states, RULES, temperature=temperature, rows=[False, True, False]
    )
    np.testing.assert_array_equal(alone[1], together[1])
    assert (alone[[0, 2]] == END_OF_TEXT).all() and (log_probs[[0, 2]] == 0).all()


def test_draws_repeat_with_their_seed_and_follow_the_rules(params, encoder_states):
    draw = functools.partial(decode, params, encoder_states, RULES, temperature=1.0)
    tokens, log_probs = draw(seed=5)
    np.testing.assert_array_equal(tokens, draw(seed=5)[0])
    assert (tokens != draw(seed=6)[0]).any()
    assert not np.isin(tokens, RULES.suppress).any()
    assert (tokens[:, 0] > tiny.NO_TIMESTAMPS).all()
    assert np.isfinite(log_probs).all()


def test_a_long_prompt_ends_at_the_text_context(params, encoder_states):
    rules = DecodingRules(END_OF_TEXT, suppress=(END_OF_TEXT,))
    prompts = ([START, 32], [5] * 16 + [START, 32], [START, 32])
    tokens, _ = decode(params, encoder_states, rules, prompts)
    assert counts(tokens) == [12, 6, 12]
