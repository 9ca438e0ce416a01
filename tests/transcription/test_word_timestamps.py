import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastwhisper_jax.decoding.prefill import WhisperModel
from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.transcription.word_timestamps import (
    cross_attention,
    median_filter,
    time_warping_path,
    token_times,
)
from fastwhisper_jax.transcription.words import split_words


def plain_path(costs):
    """The sum of the cheapest monotonic path, cell by cell."""
    rows, columns = costs.shape
    best = np.full((rows, columns), np.inf)
    for i in range(rows):
        for j in range(columns):
            before = [
                best[a, b] for a, b in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if a >= 0 and b >= 0
            ]
            best[i, j] = costs[i, j] + (min(before) if before else 0.0)
    return best[-1, -1]


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 1), (4, 9), (7, 7), (9, 30)])
def test_the_path_is_monotonic_and_cheapest(shape):
    costs = np.random.default_rng(sum(shape)).normal(size=shape)
    rows, columns = time_warping_path(costs)
    assert (rows[0], columns[0]) == (0, 0)
    assert (rows[-1], columns[-1]) == (shape[0] - 1, shape[1] - 1)
    steps = set(zip(np.diff(rows).tolist(), np.diff(columns).tolist(), strict=True))
    assert steps <= {(0, 1), (1, 0), (1, 1)}
    np.testing.assert_allclose(costs[rows, columns].sum(), plain_path(costs), rtol=1e-5)


def test_the_median_filter_equals_numpy_on_reflected_windows():
    x = np.random.default_rng(0).normal(size=(2, 3, 20))
    padded = np.pad(x, [(0, 0), (0, 0), (3, 3)], mode="reflect")
    expected = [np.median(padded[..., i : i + 7], axis=-1) for i in range(20)]
    np.testing.assert_array_equal(median_filter(x, 7), np.stack(expected, axis=-1))


def test_the_median_filter_leaves_an_axis_that_is_too_short_to_reflect():
    x = np.arange(3.0)[None]
    np.testing.assert_array_equal(median_filter(x, 7), x)


def test_token_times_follow_the_attention():
    """A token ends at the position from which the next one attends."""
    begins = [0, 20, 45, 80, 100]
    attention = np.full((2, 4, 100), 1e-3)
    for token in range(4):
        attention[:, token, begins[token] : begins[token + 1]] = 1.0
    np.testing.assert_allclose(token_times(attention), np.array(begins[:4]) * 0.02, atol=0.021)


def test_no_tokens_have_no_times():
    assert token_times(np.zeros((2, 0, 50))).shape == (0,)
    assert token_times(np.full((2, 1, 50), 0.02)).shape == (1,)


DIMS = ModelDimensions(
    n_mels=8,
    n_audio_ctx=12,
    n_audio_head=2,
    n_audio_layer=1,
    n_audio_mlp=16,
    n_vocab=40,
    n_text_ctx=16,
    n_text_head=2,
    n_text_layer=3,
    n_text_mlp=16,
    n_state=8,
)


def test_cross_attention_explains_the_decoder():
    """The attention equals that of the same decoder restated in NumPy."""
    params = jax.jit(whisper.init_params, static_argnums=0)(DIMS, jax.random.key(0))
    encoder_states = jax.random.normal(jax.random.key(1), (1, 12, 8))
    tokens = jnp.array([[1, 2, 3, 4, 5]])
    heads = ((1, 1), (0, 0), (1, 0))
    model = WhisperModel(params, DIMS, ModelOptions())
    attention = cross_attention(model, tokens, encoder_states, heads)
    assert attention.shape == (1, 3, 5, 12)
    np.testing.assert_allclose(attention.sum(-1), 1.0, rtol=1e-5)
    # The first layer and head, by hand.
    decoder = params["decoder"]
    layer = jax.tree.map(lambda x: np.asarray(x[0], np.float64), decoder["layers"])

    def norm(x, p):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * p["scale"][None] + p["bias"][None]

    def dense(x, p):
        return x @ p["kernel"] + p.get("bias", np.zeros(8))[None]

    def softmax(x):
        x = np.exp(x - x.max(-1, keepdims=True))
        return x / x.sum(-1, keepdims=True)

    x = np.asarray(decoder["embed_tokens"])[np.asarray(tokens[0])]
    x = (x + np.asarray(decoder["positions"])[:5]).astype(np.float64)
    normed = norm(x, layer["attn_norm"])
    q, k, v = (dense(normed, layer["attn"][name]) for name in ("query", "key", "value"))
    mixed = np.zeros((5, 8))
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        scores = q[:, part] @ k[:, part].T / 2 + np.triu(np.full((5, 5), -1e9), 1)
        mixed[:, part] = softmax(scores) @ v[:, part]
    x = x + dense(mixed, layer["attn"]["out"])
    query = dense(norm(x, layer["cross_attn_norm"]), layer["cross_attn"]["query"])[:, :4]
    keys = dense(np.asarray(encoder_states[0], np.float64), layer["cross_attn"]["key"])[:, :4]
    np.testing.assert_allclose(attention[0, 1], softmax(query @ keys.T / 2), atol=1e-5)


LETTERS = {1: " he", 2: "llo", 3: ",", 4: " wor", 5: "ld", 6: ".", 7: ' "', 8: "好", 9: "!"}


def decode(tokens):
    return "".join(LETTERS[token] for token in tokens)


def test_words_keep_their_space_and_their_punctuation():
    words = split_words([1, 2, 3, 7, 4, 5, 6], decode, "en")
    assert [tuple(word) for word in words] == [(" hello,", 0, 3), (' " world.', 3, 7)]


def test_languages_without_spaces_are_cut_at_characters():
    words = split_words([8, 8, 9], decode, "zh")
    assert [word.word for word in words] == ["好", "好!"]


def test_bytes_of_one_character_stay_together():
    pieces = {1: b"s", 2: b"\xc3", 3: b"\xa9", 4: b"t"}

    def decode_bytes(tokens):
        return b"".join(pieces[token] for token in tokens).decode("utf-8", "replace")

    words = split_words([1, 2, 3, 4], decode_bytes, "zh")
    assert [tuple(word) for word in words] == [("s", 0, 1), ("é", 1, 3), ("t", 3, 4)]
