"""Beam search of prompts that differ in length, with timestamps, against a search over lists."""

import functools

import jax
import numpy as np
import pytest
from support import restated_search as restated
from support import tiny_decoding as tiny
from support.tiny_decoding import END_OF_TEXT, PLAIN, RULES

from fastwhisper_jax.decoding.beam import beam_search
from fastwhisper_jax.decoding.greedy import greedy_decode
from fastwhisper_jax.decoding.prefill import prefill
from fastwhisper_jax.decoding.rules import apply_rules

BEAMS = 4


@pytest.fixture(scope="module")
def params():
    return tiny.make_params(scale=3.0)


@pytest.fixture(scope="module")
def encoder_states():
    return tiny.make_encoder_states()


@functools.partial(jax.jit, static_argnames=("rules", "beams"))
def jitted(params, encoder_states, prompts, rules, beams):
    start = prefill(
        tiny.tiny_model(params),
        encoder_states,
        tiny.with_start(*prompts),
        tiny.MAX_NEW_TOKENS,
        beams,
    )
    hypotheses = greedy_decode(start, rules) if beams == 1 else beam_search(start, rules)
    return hypotheses.tokens[:, 0], hypotheses.log_probs[:, 0]


def search(params, encoder_states, rules, rows=None, beams=BEAMS):
    """Tokens and log-probabilities of the best text, (B, T) each."""
    best = jitted(params, encoder_states, tiny.make_prompts(rows=rows), rules, beams)
    return jax.tree.map(np.asarray, best)


def log_probs_after(params, encoder_states, rules, prompt):
    """Uncached, one text at a time."""

    @functools.cache
    def after(text):
        fed = np.zeros((1, tiny.DIMS.n_text_ctx), np.int32)
        fed[0, : len(prompt) + len(text)] = [*prompt, *text]
        last = len(prompt) + len(text) - 1
        log_probs = jax.nn.log_softmax(tiny.logits_of(params, fed, encoder_states)[:, last])
        emitted = np.full((1, tiny.DIMS.n_text_ctx), END_OF_TEXT, np.int32)
        emitted[0, : len(text)] = text
        return np.asarray(apply_rules(log_probs, rules, emitted, len(text)))[0]

    return after


@pytest.mark.parametrize("rules", [RULES, PLAIN], ids=["timestamps", "plain"])
def test_the_search_is_that_of_transformers_under_the_rules(params, encoder_states, rules):
    emitted, log_probs = search(params, encoder_states, rules)
    for row, prompt in enumerate(tiny.PROMPTS):
        after = log_probs_after(params, encoder_states[row][None], rules, prompt)
        new = min(tiny.MAX_NEW_TOKENS, tiny.DIMS.n_text_ctx - len(prompt))
        score, text = restated.search_of_transformers(after, END_OF_TEXT, new, BEAMS, 1.0)
        tokens = [token for token in text if token != END_OF_TEXT]
        assert emitted[row, : len(tokens)].tolist() == tokens
        assert (emitted[row, len(tokens) :] == END_OF_TEXT).all()
        # Fallback judges a window by the mean over its tokens and their end.
        np.testing.assert_allclose(log_probs[row].sum() / len(text), score, atol=1e-4)
        each = [after(text[:index])[token] for index, token in enumerate(text)]
        np.testing.assert_allclose(log_probs[row, : len(each)], each, atol=1e-4)


def test_timestamps_are_well_formed_and_beams_find_what_greedy_decoding_does_not(
    params, encoder_states
):
    emitted, _ = search(params, encoder_states, RULES)
    assert (emitted[:, 0] > tiny.NO_TIMESTAMPS).all()
    greedy, _ = search(params, encoder_states, RULES, beams=1)
    assert (greedy != emitted).any()


def test_rows_that_only_fill_the_batch_emit_nothing_and_change_nothing(params, encoder_states):
    together, _ = search(params, encoder_states, RULES)
    alone, _ = search(params, encoder_states, RULES, rows=[False, True, False])
    np.testing.assert_array_equal(alone[1], together[1])
    assert (alone[[0, 2]] == END_OF_TEXT).all()
