"""Beam search of windows, against a restatement over lists."""

import functools
import runpy
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from support import restated_search as restated

from fastwhisper_jax.decoding.timestamps import apply_timestamp_rules
from fastwhisper_jax.decoding.window_search import search_windows
from fastwhisper_jax.models import whisper

HERE = Path(__file__).parent
windows = SimpleNamespace(**runpy.run_path(str(HERE / "test_windows.py")))
DIMS, RULES, PLAIN, PROMPTS = windows.DIMS, windows.RULES, windows.PLAIN, windows.PROMPTS
END_OF_TEXT, BEAMS = windows.END_OF_TEXT, 4


@pytest.fixture(scope="module")
def params():
    random = jax.jit(whisper.init_params, static_argnums=0)(DIMS, jax.random.key(0))
    return jax.tree.map(lambda x: 3.0 * x, random)


@pytest.fixture(scope="module")
def encoder_states():
    return jax.random.normal(jax.random.key(1), (3, DIMS.n_audio_ctx, DIMS.n_state))


@functools.partial(jax.jit, static_argnames=("rules", "beams"))
def jitted(params, rules, *arrays, beams=BEAMS):
    return search_windows(params, DIMS, windows.OPTIONS, rules, *arrays, beams)


def search(params, encoder_states, rules, rows=(True, True, True)):
    width = max(map(len, PROMPTS))
    prompt = np.array([[*p, *[END_OF_TEXT] * (width - len(p))] for p in PROMPTS], np.int32)
    lengths = np.array([len(p) for p in PROMPTS], np.int32)
    found = jitted(params, rules, encoder_states, prompt, lengths, np.array(rows))
    return jax.tree.map(np.asarray, found)


def log_probs_after(params, encoder_states, rules, prompt):
    """Uncached, one text at a time."""

    @functools.cache
    def after(text):
        fed = np.zeros((1, DIMS.n_text_ctx), np.int32)
        fed[0, : len(prompt) + len(text)] = [*prompt, *text]
        logits = windows.logits_of(params, fed, encoder_states)[:, len(prompt) + len(text) - 1]
        banned = rules.decoding.banned if text else rules.decoding.banned_first
        log_probs = jax.nn.log_softmax(logits) + banned(DIMS.n_vocab)[None]
        if rules.timestamps:
            emitted = np.full((1, DIMS.n_text_ctx), END_OF_TEXT, np.int32)
            emitted[0, : len(text)] = text
            log_probs = apply_timestamp_rules(log_probs, rules.timestamps, emitted, len(text))
        return np.asarray(log_probs)[0]

    return after


@pytest.mark.parametrize("rules", [RULES, PLAIN], ids=["timestamps", "plain"])
def test_the_search_is_that_of_transformers_under_the_rules(params, encoder_states, rules):
    found = search(params, encoder_states, rules)
    for row, prompt in enumerate(PROMPTS):
        after = log_probs_after(params, encoder_states[row][None], rules, prompt)
        new = min(rules.max_new_tokens, DIMS.n_text_ctx - len(prompt))
        score, text = restated.search_of_transformers(after, END_OF_TEXT, new, BEAMS, 1.0)
        tokens = [token for token in text if token != END_OF_TEXT]
        assert found.counts[row] == len(tokens)
        assert found.tokens[row, : len(tokens)].tolist() == tokens
        # What fallback judges by: the mean over the tokens and their end.
        np.testing.assert_allclose(found.log_probabilities[row].sum() / len(text), score, atol=1e-4)
        each = [after(text[:place])[token] for place, token in enumerate(text)]
        np.testing.assert_allclose(found.log_probabilities[row, : len(each)], each, atol=1e-4)


def test_timestamps_are_well_formed_and_beams_find_what_greedy_decoding_does_not(
    params, encoder_states
):
    found = search(params, encoder_states, RULES)
    assert (found.tokens[:, 0] > windows.NO_TIMESTAMPS).all()
    greedy = windows.decode(params, encoder_states, RULES)
    assert (greedy.tokens != found.tokens).any()
    np.testing.assert_allclose(greedy.no_speech, found.no_speech, rtol=1e-4)


def test_rows_that_only_fill_the_batch_emit_nothing_and_change_nothing(params, encoder_states):
    together = search(params, encoder_states, RULES)
    alone = search(params, encoder_states, RULES, rows=[False, True, False])
    np.testing.assert_array_equal(alone.tokens[1], together.tokens[1])
    assert alone.counts.tolist() == [0, together.counts[1], 0]
