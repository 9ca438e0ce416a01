import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastwhisper_jax.decoding.greedy import greedy_decode
from fastwhisper_jax.decoding.prefill import WhisperModel, prefill, prompts_of_one_length
from fastwhisper_jax.decoding.rules import DecodingRules, decoding_rules
from fastwhisper_jax.distillation.model_options import model_options
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.evaluation.corpus_batches import make_transcribe
from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.sharding_rules import RULES
from fastwhisper_jax.training.sharding import batch_sharding, make_mesh, tree_shardings

DIMS = ModelDimensions(
    n_mels=8,
    n_audio_ctx=6,
    n_audio_head=2,
    n_audio_layer=1,
    n_audio_mlp=32,
    n_vocab=61,
    n_text_ctx=24,
    n_text_head=2,
    n_text_layer=2,
    n_text_mlp=32,
    n_state=16,
)
OPTIONS = ModelOptions()
NO_END = DecodingRules(end_of_text=60, suppress=(60,))


@pytest.fixture(scope="module")
def params():
    # Larger than at the start of training, so that the emitted tokens vary.
    random = jax.jit(whisper.init_params, static_argnums=0)(DIMS, jax.random.key(0))
    return jax.tree.map(lambda x: 3.0 * x, random)


@pytest.fixture(scope="module")
def encoder_states():
    return jax.random.normal(jax.random.key(1), (4, DIMS.n_audio_ctx, DIMS.n_state))


PROMPT = np.array([[1, 2, 3], [1, 4, 3], [1, 2, 3], [1, 5, 3]], np.int32)


@functools.partial(jax.jit, static_argnames=("rules", "max_new_tokens"))
def jitted_decode(params, encoder_states, prompt, rules, max_new_tokens, row_mask):
    prompts = prompts_of_one_length(prompt, row_mask)
    start = prefill(WhisperModel(params, DIMS, OPTIONS), encoder_states, prompts, max_new_tokens)
    return greedy_decode(start, rules).tokens[:, 0]


def decode(params, encoder_states, prompt, rules, max_new_tokens, row_mask=None):
    row_mask = np.ones(len(prompt), bool) if row_mask is None else row_mask
    return np.asarray(
        jitted_decode(params, encoder_states, prompt, rules, max_new_tokens, row_mask)
    )


@jax.jit
def all_logits(params, tokens, encoder_states):
    return whisper.logits(params, whisper.decode(params, DIMS, tokens, encoder_states, OPTIONS))


def decode_by_teacher_forcing(params, encoder_states, prompt, rules, max_new_tokens):
    """The definition: the whole sequence through the uncached decoder for every token."""
    length = prompt.shape[1]
    tokens = np.zeros((len(prompt), DIMS.n_text_ctx + 1), np.int32)  # the rest is causally masked
    tokens[:, :length] = prompt
    ended = np.zeros(len(tokens), bool)
    for step in range(max_new_tokens):
        logits = np.array(all_logits(params, tokens[:, :-1], encoder_states))[:, length + step - 1]
        logits[:, list(rules.suppress)] = -np.inf
        if step == 0:
            logits[:, list(rules.begin_suppress)] = -np.inf
        token = np.where(ended, rules.end_of_text, logits.argmax(-1))
        ended |= token == rules.end_of_text
        tokens[:, length + step] = token
    return tokens[:, length : length + max_new_tokens]


def test_cached_equals_teacher_forced_decoding(params, encoder_states):
    emitted = decode(params, encoder_states, PROMPT, NO_END, 12)
    expected = decode_by_teacher_forcing(params, encoder_states, PROMPT, NO_END, 12)
    np.testing.assert_array_equal(emitted, expected)
    assert len(np.unique(emitted)) > 4  # else the comparison would prove little


def test_a_row_ends_at_its_first_end_of_text_and_is_filled_with_it(params, encoder_states):
    free = decode(params, encoder_states, PROMPT, NO_END, 12)
    end = int(free[0, 3])
    rules = DecodingRules(end_of_text=end)
    emitted = decode(params, encoder_states, PROMPT, rules, 12)
    np.testing.assert_array_equal(
        emitted, decode_by_teacher_forcing(params, encoder_states, PROMPT, rules, 12)
    )
    length = list(emitted[0]).index(end)
    assert length <= 3
    assert (emitted[0, length:] == end).all()


def test_suppressed_tokens_are_never_emitted(params, encoder_states):
    free = decode(params, encoder_states, PROMPT, NO_END, 12)
    rules = DecodingRules(end_of_text=60, suppress=(60, *{int(t) for t in free[:, 1:4].ravel()}))
    emitted = decode(params, encoder_states, PROMPT, rules, 12)
    assert not np.isin(emitted, rules.suppress).any()


def test_begin_suppressed_tokens_are_banned_at_the_first_position_only(params, encoder_states):
    free = decode(params, encoder_states, PROMPT, NO_END, 12)
    rules = DecodingRules(60, suppress=(60,), begin_suppress=tuple({int(t) for t in free[:, 0]}))
    emitted = decode(params, encoder_states, PROMPT, rules, 12)
    assert not np.isin(emitted[:, 0], rules.begin_suppress).any()
    np.testing.assert_array_equal(
        emitted, decode_by_teacher_forcing(params, encoder_states, PROMPT, rules, 12)
    )


def test_rows_that_only_fill_the_batch_emit_nothing_and_change_nothing(params, encoder_states):
    full = decode(params, encoder_states, PROMPT, NO_END, 8)
    masked = decode(params, encoder_states, PROMPT, NO_END, 8, np.array([True, True, False, False]))
    np.testing.assert_array_equal(masked[:2], full[:2])
    assert (masked[2:] == NO_END.end_of_text).all()


@pytest.fixture(scope="module")
def on_mesh(params, encoder_states):
    """Decodes with everything divided over 8 devices: the compiled program, and its arguments."""
    mesh = make_mesh(1, 8)
    options = model_options(mesh, "float32")
    transcribe = make_transcribe(DIMS, options, NO_END, 12)
    divided = jax.device_put(params, tree_shardings(params, RULES, mesh))
    rows = (jnp.tile(encoder_states, (2, 1, 1)), jnp.tile(PROMPT, (2, 1)), jnp.ones(8, bool))
    states, prompt, mask = jax.device_put(rows, batch_sharding(mesh))
    arguments = (divided, {"encoder_states": states}, prompt, mask)
    return transcribe.lower(*arguments).compile(), arguments


def test_a_divided_model_emits_the_tokens_of_a_whole_one(on_mesh, params, encoder_states):
    program, arguments = on_mesh
    expected = decode(params, encoder_states, PROMPT, NO_END, 12)
    np.testing.assert_array_equal(program(*arguments), np.tile(expected, (2, 1)))


def test_devices_exchange_nothing_for_a_token_but_whether_all_have_ended(on_mesh):
    text = on_mesh[0].as_text()
    lines = r"^%?([\w.-]+) [^\n]*\{\n(.*?)^\}"
    computations = dict(re.findall(lines, text, re.MULTILINE | re.DOTALL))
    (condition,), (body,) = (
        set(re.findall(rf" while\(.*{part}=%?([\w.-]+)", text)) for part in ("condition", "body")
    )
    collective = r"= (\S+) (?:all-\w+|reduce-scatter|collective-permute)(?:-start)?\("
    assert re.findall(collective, text)
    assert re.findall(collective, computations[condition]) == ["pred[]"]
    assert re.findall(collective, computations[body]) == []


def test_decoding_stops_when_the_text_context_is_full(params, encoder_states):
    emitted = decode(params, encoder_states, PROMPT, NO_END, 40)
    most = DIMS.n_text_ctx - PROMPT.shape[1]
    assert emitted.shape == (4, most)
    assert (emitted != NO_END.end_of_text).all()
    np.testing.assert_array_equal(
        emitted, decode_by_teacher_forcing(params, encoder_states, PROMPT, NO_END, most)
    )


def test_one_new_token_needs_no_loop(params, encoder_states):
    first = decode(params, encoder_states, PROMPT, NO_END, 1)
    np.testing.assert_array_equal(first, decode(params, encoder_states, PROMPT, NO_END, 5)[:, :1])


@pytest.mark.parametrize(("prompt_length", "max_new_tokens"), [(3, 0), (DIMS.n_text_ctx, 5)])
def test_a_prompt_that_leaves_no_token_to_emit_is_an_error(
    params, encoder_states, prompt_length, max_new_tokens
):
    prompt = jnp.ones((4, prompt_length), jnp.int32)
    with pytest.raises(InputError, match="leaves no token to emit"):
        decode(params, encoder_states, prompt, NO_END, max_new_tokens)


def test_new_parameters_of_the_same_shapes_compile_nothing(params, encoder_states):
    transcribe: Any = make_transcribe(DIMS, OPTIONS, NO_END, max_new_tokens=4)
    given = ({"encoder_states": encoder_states}, PROMPT, np.ones(4, bool))
    before = transcribe(params, *given)
    after = transcribe(jax.tree.map(lambda x: -x, params), *given)
    assert transcribe._cache_size() == 1
    assert (np.asarray(before) != np.asarray(after)).any()


def test_rules_come_from_the_generation_config():
    config = {"eos_token_id": 60, "suppress_tokens": [1, 2], "begin_suppress_tokens": [3, 60]}
    assert decoding_rules(config) == DecodingRules(60, (1, 2), (3, 60))
    assert decoding_rules({"eos_token_id": [60], "suppress_tokens": None}) == DecodingRules(60)
