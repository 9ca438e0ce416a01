import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from support import restated_search as restated

from fastwhisper_jax.decoding.beam import beam_search
from fastwhisper_jax.decoding.greedy import greedy_decode
from fastwhisper_jax.decoding.prefill import WhisperModel, prefill, prompts_of_one_length
from fastwhisper_jax.decoding.rules import DecodingRules
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.evaluation.corpus_batches import make_transcribe
from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions

DIMS = ModelDimensions(
    n_mels=8,
    n_audio_ctx=6,
    n_audio_head=2,
    n_audio_layer=1,
    n_audio_mlp=32,
    n_vocab=23,
    n_text_ctx=16,
    n_text_head=2,
    n_text_layer=2,
    n_text_mlp=32,
    n_state=16,
)
OPTIONS = ModelOptions()
END = 7
RULES = DecodingRules(end_of_text=END, suppress=(3, 11), begin_suppress=(END, 5))
PROMPT = np.array([[1, 2], [1, 4], [1, 2], [1, 5], [1, 6], [1, 8], [1, 9], [1, 10]], np.int32)
NEW = 8


def make_params(dims):
    # Larger than at the start of training, so that the emitted tokens vary.
    random = jax.jit(whisper.init_params, static_argnums=0)(dims, jax.random.key(0))
    return jax.tree.map(lambda x: 3.0 * np.asarray(x), random)


@pytest.fixture(scope="module")
def params():
    return make_params(DIMS)


@pytest.fixture(scope="module")
def encoder_states():
    return np.asarray(jax.random.normal(jax.random.key(1), (8, DIMS.n_audio_ctx, DIMS.n_state)))


@functools.partial(jax.jit, static_argnames=("new", "beams", "penalty", "rules", "dims", "options"))
def search(
    params,
    encoder_states,
    prompt,
    row_mask=None,
    *,
    new=NEW,
    beams=4,
    penalty=1.0,
    rules=RULES,
    dims=DIMS,
    options=OPTIONS,
):
    model = WhisperModel(params, dims, options)
    row_mask = jnp.ones(len(prompt), bool) if row_mask is None else row_mask
    prompts = prompts_of_one_length(prompt, row_mask)
    start = prefill(model, encoder_states, prompts, new, beams)
    return beam_search(start, rules, penalty).tokens[:, 0]


@jax.jit
def greedy(params, encoder_states):
    prompts = prompts_of_one_length(PROMPT, jnp.ones(len(PROMPT), bool))
    start = prefill(WhisperModel(params, DIMS, OPTIONS), encoder_states, prompts, NEW)
    return greedy_decode(start, RULES).tokens[:, 0]


@functools.partial(jax.jit, static_argnames="dims")
def next_log_probs(params, tokens, encoder_states, dims=DIMS):
    """Uncached: of every token of the vocabulary after every token of a text."""
    states = whisper.decode(params, dims, tokens, encoder_states, OPTIONS)
    return jax.nn.log_softmax(whisper.logits(params, states))


def log_probs_of_row(params, encoder_states, prompt, rules):
    """A function of the tokens emitted so far, for the restated search."""

    @functools.cache
    def after(text):
        tokens = np.zeros((1, DIMS.n_text_ctx), np.int32)  # what follows is causally masked
        fed = [*prompt, *text]
        tokens[0, : len(fed)] = fed
        row = np.array(next_log_probs(params, tokens, encoder_states[None]))[0, len(fed) - 1]
        row[list(rules.suppress + (() if text else rules.begin_suppress))] = -np.inf
        return row

    return after


def padded(text, end_of_text=END, length=NEW):
    return [*text, *[end_of_text] * (length - len(text))]


@pytest.mark.parametrize(("beams", "penalty"), [(5, 1.0), (5, 0.0), (3, 2.0)])
def test_the_search_is_that_of_transformers(params, encoder_states, beams, penalty):
    expected = [
        padded(
            restated.search_of_transformers(
                log_probs_of_row(params, encoder_states[row], PROMPT[row], RULES),
                END,
                NEW,
                beams,
                penalty,
            )[1]
        )
        for row in range(len(PROMPT))
    ]
    emitted = search(params, encoder_states, PROMPT, beams=beams, penalty=penalty)
    np.testing.assert_array_equal(emitted, expected)
    # Else the comparison would prove little.
    lengths = (np.array(expected) != END).sum(axis=1)
    assert len(set(lengths)) > 1


def test_it_finds_the_best_of_all_texts_if_it_has_beams_for_all():
    """V=5 and 3 tokens: 125 beams hold every text, so the search is exhaustive."""
    dims = ModelDimensions(**(vars(DIMS) | {"n_vocab": 5}))
    rules, prompt, new = DecodingRules(end_of_text=4), np.array([[0, 1], [2, 3]], np.int32), 3
    params = make_params(dims)
    encoder_states = np.asarray(
        jax.random.normal(jax.random.key(2), (2, dims.n_audio_ctx, dims.n_state))
    )
    emitted = search(
        params, encoder_states, prompt, new=new, beams=5**new, penalty=1.0, rules=rules, dims=dims
    )
    texts = np.array(list(itertools.product(range(5), repeat=new)), np.int32)
    for row in range(2):
        fed = np.concatenate([np.repeat(prompt[row : row + 1], len(texts), axis=0), texts], axis=1)
        log_probs = next_log_probs(
            params, fed, np.repeat(encoder_states[row : row + 1], 125, axis=0), dims
        )
        after = np.take_along_axis(np.array(log_probs)[:, 1:-1], texts[..., None], axis=2)[..., 0]
        ends = texts == 4
        lengths = np.where(ends.any(axis=1), ends.argmax(axis=1) + 1, new)
        is_counted = np.arange(new)[None] < lengths[:, None]
        best = ((after * is_counted).sum(axis=1) / lengths).argmax()
        assert list(emitted[row]) == padded(texts[best][: lengths[best]], 4, new)


def test_one_beam_without_length_penalty_is_greedy(params, encoder_states):
    """By sums alone, no longer text beats one that has ended."""
    np.testing.assert_array_equal(
        search(params, encoder_states, PROMPT, beams=1, penalty=0.0),
        greedy(params, encoder_states),
    )


def test_beams_find_likelier_texts_than_greedy_decoding(params, encoder_states):
    likeliest_tokens = np.asarray(greedy(params, encoder_states))
    searched = np.asarray(search(params, encoder_states, PROMPT, beams=5, penalty=0.0))

    def score(row, tokens):
        after, total = log_probs_of_row(params, encoder_states[row], PROMPT[row], RULES), 0.0
        for position, token in enumerate(tokens):
            total += after(tuple(tokens[:position]))[token]
            if token == END:
                break
        return total

    gains = [score(r, searched[r]) - score(r, likeliest_tokens[r]) for r in range(len(PROMPT))]
    assert min(gains) > -1e-4
    assert max(gains) > 0.1


def test_a_row_does_not_depend_on_its_companions(params, encoder_states):
    together = np.asarray(search(params, encoder_states, PROMPT))
    order = np.array([5, 2, 2, 2, 7, 0, 2, 1])
    np.testing.assert_array_equal(
        search(params, encoder_states[order], PROMPT[order]), together[order]
    )


def test_rows_that_only_fill_the_batch_emit_nothing_and_change_nothing(params, encoder_states):
    full = np.asarray(search(params, encoder_states, PROMPT))
    is_real = np.arange(len(PROMPT)) % 3 != 0
    masked = np.asarray(search(params, encoder_states, PROMPT, is_real))
    np.testing.assert_array_equal(masked[is_real], full[is_real])
    assert (masked[~is_real] == END).all()


def test_suppressed_tokens_are_never_emitted(params, encoder_states):
    emitted = np.asarray(search(params, encoder_states, PROMPT))
    assert not np.isin(emitted, RULES.suppress).any()
    assert not np.isin(emitted[:, 0], RULES.begin_suppress).any()


def test_decoding_stops_when_the_text_context_is_full(params, encoder_states):
    never_ends = DecodingRules(end_of_text=END, suppress=(END,))
    emitted = np.asarray(search(params, encoder_states, PROMPT, new=20, rules=never_ends))
    assert emitted.shape == (len(PROMPT), DIMS.n_text_ctx - PROMPT.shape[1])
    assert (emitted != END).all()


def test_sharded_rows_are_searched_on_their_own_device(params, encoder_states):
    """The same tokens, and no row's keys or values leave their device inside the loop."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    by_row = NamedSharding(mesh, PartitionSpec("data"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    arguments = (
        jax.device_put(params, everywhere),
        *jax.device_put((encoder_states, PROMPT), by_row),
    )
    compiled = search.lower(*arguments, options=ModelOptions(activations=by_row)).compile()
    assert "all-gather" not in compiled.as_text()
    np.testing.assert_array_equal(compiled(*arguments), search(params, encoder_states, PROMPT))


def test_transcribing_with_beams_searches(params, encoder_states):
    transcribe = make_transcribe(DIMS, OPTIONS, RULES, NEW, beams=4)
    emitted = transcribe(
        params, {"encoder_states": encoder_states}, PROMPT, np.ones(len(PROMPT), bool)
    )
    np.testing.assert_array_equal(emitted, search(params, encoder_states, PROMPT))


@pytest.mark.parametrize(("new", "beams"), [(0, 5), (4, 0)])
def test_no_token_to_emit_or_no_beam_is_refused(params, encoder_states, new, beams):
    with pytest.raises(InputError, match="at least 1"):
        search(params, encoder_states, PROMPT, new=new, beams=beams)
