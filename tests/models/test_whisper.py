"""The model is Whisper, causal, and the same whichever way it is computed."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastwhisper_jax.losses.askd import Weights
from fastwhisper_jax.losses.chunked import (
    ChunkSettings,
    LogitFactors,
    Targets,
    distillation_sums,
)
from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.layers import Norm, sum_in_blocks
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.whisper import cached_decoder
from fastwhisper_jax.models.whisper.encoder import sinusoids

FLOAT32 = ModelOptions()
LENGTH = 8


@pytest.fixture(scope="module")
def log_mel(dims):
    return np.random.default_rng(1).normal(size=(2, dims.n_frames, dims.n_mels)).astype("f4")


@pytest.fixture(scope="module")
def tokens(dims):
    """(2, T), no token twice in a row."""
    order = np.random.default_rng(2).permuted(np.tile(np.arange(dims.n_vocab), (2, 1)), axis=1)
    return order[:, :LENGTH].astype(np.int32)


@functools.partial(jax.jit, static_argnums=(1, 4))
def forward(params, dims, log_mel, tokens, options, key=None):
    """Encoder output, decoder states and logits."""
    encoder_key, decoder_key = (None, None) if key is None else jax.random.split(key)
    encoder_states = whisper.encode(params, dims, log_mel, options, encoder_key)
    states = whisper.decode(params, dims, tokens, encoder_states, options, decoder_key)
    return encoder_states, states, whisper.logits(params, states)


@pytest.fixture(scope="module")
def plain(dims, params, log_mel, tokens):
    """What float32 without any option gives."""
    return forward(params, dims, log_mel, tokens, FLOAT32)


# Whisper once more, in float64 NumPy, from openai/whisper's model.py.


def _norm(p, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]


def _linear(p, x):
    return x @ p["kernel"] + p.get("bias", 0.0)


def _gelu(x):
    return 0.5 * x * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0)))


def _attend(p, heads, x, y, causal=False):
    def split(z):
        return z.reshape(*z.shape[:2], heads, -1).swapaxes(1, 2)

    query, key, value = (
        split(_linear(p[n], z)) for n, z in (("query", x), ("key", y), ("value", y))
    )
    scores = query @ key.swapaxes(2, 3) / math.sqrt(query.shape[-1])
    if causal:
        scores = np.where(np.tri(x.shape[1], dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    attended = weights / weights.sum(-1, keepdims=True) @ value
    return _linear(p["out"], attended.swapaxes(1, 2).reshape(x.shape))


def _conv(p, x, stride):
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0)))
    taps = [padded[:, i : i + x.shape[1] : stride] @ p["kernel"][i] for i in range(3)]
    return _gelu(sum(taps) + p["bias"])


def _layers(stack):
    depth = len(stack["layers"]["attn_norm"]["scale"])
    return [jax.tree.map(lambda x, i=i: x[i], stack["layers"]) for i in range(depth)]


def _reference(params, dims, log_mel, tokens):
    heard, said = _reference_layers(params, dims, log_mel, tokens)
    encoder_states = _norm(params["encoder"]["norm"], heard[-1])
    states = _norm(params["decoder"]["norm"], said[-1])
    return encoder_states, states, states @ params["decoder"]["embed_tokens"].T


def _reference_layers(params, dims, log_mel, tokens):
    """The residual stream after each layer, of the encoder and of the decoder."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    encoder, decoder = params["encoder"], params["decoder"]
    x = _conv(encoder["conv2"], _conv(encoder["conv1"], log_mel, 1), 2) + encoder["positions"]
    heard, said = [], []
    for layer in _layers(encoder):
        y = _norm(layer["attn_norm"], x)
        x = x + _attend(layer["attn"], dims.n_audio_head, y, y)
        x = x + _mlp(layer, x)
        heard.append(x)
    encoder_states = _norm(encoder["norm"], x)
    x = decoder["embed_tokens"][tokens] + decoder["positions"][: tokens.shape[1]]
    for layer in _layers(decoder):
        y = _norm(layer["attn_norm"], x)
        x = x + _attend(layer["attn"], dims.n_text_head, y, y, causal=True)
        y = _norm(layer["cross_attn_norm"], x)
        x = x + _attend(layer["cross_attn"], dims.n_text_head, y, encoder_states)
        x = x + _mlp(layer, x)
        said.append(x)
    return heard, said


def _mlp(layer, x):
    inner = _gelu(_linear(layer["mlp"]["fc1"], _norm(layer["mlp_norm"], x)))
    return _linear(layer["mlp"]["fc2"], inner)


def test_the_model_is_whisper(dims, params, log_mel, tokens, plain):
    expected = _reference(params, dims, log_mel, tokens)
    for ours, theirs in zip(plain, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_positions_of_the_encoder_are_openais_sinusoids(dims):
    # openai/whisper, model.py: sinusoids, in its own words.
    increment = np.log(10_000) / (384 // 2 - 1)
    inverse_timescales = np.exp(-increment * np.arange(384 // 2))
    scaled_time = np.arange(1500)[:, np.newaxis] * inverse_timescales[np.newaxis, :]
    expected = np.concatenate([np.sin(scaled_time), np.cos(scaled_time)], axis=1)
    np.testing.assert_allclose(sinusoids(1500, 384), expected, atol=1e-6)
    assert sinusoids(1500, 384).dtype == np.float32


def test_a_state_does_not_depend_on_later_tokens(dims, params, tokens, plain):
    """The gradient of state t by the embedding of token u > t is exactly zero."""
    direction = np.random.default_rng(3).normal(size=dims.n_state).astype("f4")

    @jax.jit
    @jax.jacrev
    def gradient(embed_tokens, encoder_states):
        decoder = params["decoder"] | {"embed_tokens": embed_tokens}
        row = whisper.decode({"decoder": decoder}, dims, tokens[:1], encoder_states[:1], FLOAT32)
        return row[0] @ direction

    by_token = np.asarray(gradient(jnp.asarray(params["decoder"]["embed_tokens"]), plain[0]))
    reaches = np.abs(by_token[:, tokens[0]]).max(axis=-1)
    later = ~np.tri(LENGTH, dtype=bool)
    assert (reaches[later] == 0.0).all()
    assert (reaches[~later] > 0.0).all()


def test_cached_decoding_equals_decoding_at_once(dims, params, tokens, plain):
    """Whatever the cut: a prompt of three, one token, then four."""

    @jax.jit
    def in_parts(params, encoder_states):
        decoder = cached_decoder.unstack_layers(params, dims, FLOAT32)
        cache = cached_decoder.start(decoder, dims, encoder_states, FLOAT32, max_length=LENGTH + 2)
        parts = []
        for part in jnp.split(tokens, [3, 4], axis=1):
            states, cache = cached_decoder.extend(decoder, dims, cache, part, FLOAT32)
            parts.append(states)
        return jnp.concatenate(parts, axis=1), cache.position

    encoder_states, states, _ = plain
    cached, position = in_parts(params, encoder_states)
    np.testing.assert_allclose(cached, states, rtol=1e-5, atol=1e-5)
    assert int(position) == LENGTH


@pytest.mark.parametrize("rematerialise", ["all_but_projections", "everything"])
def test_rematerialising_changes_no_gradient(rematerialise, dims, params, log_mel, tokens):
    @functools.partial(jax.jit, static_argnums=1)
    @jax.grad
    def gradient(params, options):
        _, _, logits = forward(params, dims, log_mel, tokens, options)
        return jax.nn.log_softmax(logits)[..., 0].sum()

    kept = gradient(params, FLOAT32)
    recomputed = gradient(params, ModelOptions(rematerialise=rematerialise))
    for ours, theirs in zip(jax.tree.leaves(recomputed), jax.tree.leaves(kept), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


def test_dropout_needs_a_key_and_follows_it(dims, params, log_mel, tokens, plain):
    run = functools.partial(forward, params, dims, log_mel, tokens, ModelOptions(dropout=0.3))
    first, again, other = (run(jax.random.key(seed)) for seed in (0, 0, 1))
    for exact, a, b, c in zip(plain, first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.allclose(a, c, atol=1e-2)
        assert not np.allclose(a, exact, atol=1e-2)
    for without_key, exact in zip(run(), plain, strict=True):
        np.testing.assert_allclose(without_key, exact, rtol=1e-6, atol=1e-6)


def test_bfloat16_computes_narrow_and_projects_wide(dims, params, log_mel, tokens, plain):
    narrow = forward(params, dims, log_mel, tokens, ModelOptions("bfloat16"))
    assert [x.dtype.name for x in narrow] == ["bfloat16", "bfloat16", "float32"]
    for ours, exact in zip(narrow, plain, strict=True):
        apart = np.abs(np.asarray(ours, np.float32) - exact)
        assert apart.max() < 0.1 * np.abs(exact).max()
        assert apart.mean() < 0.01 * np.abs(exact).max()


def test_bfloat16_gradients_of_model_and_loss_are_those_of_float32_within_a_bound(
    dims, params, log_mel, tokens
):
    """Distillation from another decoder, by every parameter of the student."""

    @functools.partial(jax.jit, static_argnums=1)
    @jax.value_and_grad
    def loss_and_gradient(params, options):
        encoder_states = whisper.encode(params, dims, log_mel, options)
        decoders = params, jax.tree.map(lambda x: x[..., ::-1], params)
        student, teacher = (
            LogitFactors(
                whisper.decode(p, dims, tokens, encoder_states, options),
                p["decoder"]["embed_tokens"],
            )
            for p in decoders
        )
        mask = jnp.ones(tokens.shape, jnp.float32)
        targets = Targets(jnp.asarray(tokens), mask, Weights(0.5, 0.5, 0.0), teacher)
        return distillation_sums(student, targets, ChunkSettings(8, temperature=2.0)).loss

    exact_loss, exact = loss_and_gradient(params, FLOAT32)
    loss, narrow = loss_and_gradient(params, ModelOptions("bfloat16"))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, exact_loss, rtol=0.02)
    for ours, theirs in zip(jax.tree.leaves(narrow), jax.tree.leaves(exact), strict=True):
        assert ours.dtype == jnp.float32
        assert np.linalg.norm(ours - theirs) < 0.1 * np.linalg.norm(theirs)


def test_one_row_encoded_after_the_other_equals_all_at_once(params, dims, log_mel, plain):
    encoder_states = jax.jit(whisper.encode, static_argnums=(1, 3))(
        params, dims, log_mel, ModelOptions(encodes_by_row=True)
    )
    np.testing.assert_allclose(encoder_states, plain[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        FLOAT32,
        ModelOptions(rematerialise="everything"),
        ModelOptions(rematerialise="all_but_projections"),
        ModelOptions(encodes_by_row=True),
    ],
    ids=["plain", "recomputed", "recomputed in part", "by row"],
)
def test_the_states_after_each_layer_are_whispers(params, dims, log_mel, tokens, plain, options):
    @jax.jit
    def run(log_mel):
        heard = whisper.run_encoder(params, dims, log_mel, options, keeps_layers=True)
        said = whisper.run_decoder(params, dims, tokens, heard.output, options, keeps_layers=True)
        return heard, said

    expected = _reference_layers(params, dims, log_mel, tokens)
    for found, layers, output in zip(run(log_mel), expected, plain[:2], strict=True):
        np.testing.assert_allclose(found.layers, layers, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found.output, output, rtol=1e-5, atol=1e-5)


def test_attention_by_head_equals_attention_of_all_heads_together(
    dims, params, log_mel, tokens, plain
):
    by_head = forward(params, dims, log_mel, tokens, ModelOptions(attention="per_head"))
    for ours, theirs in zip(by_head, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_shorter_context_takes_a_shorter_window(dims, params, log_mel, tokens):
    short = dataclasses.replace(dims, n_audio_ctx=12)
    encoder = params["encoder"] | {"positions": params["encoder"]["positions"][:12]}
    cut = params | {"encoder": encoder}
    encoder_states, states, _ = forward(cut, short, log_mel[:, : short.n_frames], tokens, FLOAT32)
    expected = _reference(cut, short, log_mel[:, : short.n_frames], tokens)
    np.testing.assert_allclose(encoder_states, expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(states, expected[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [FLOAT32, ModelOptions(encodes_by_row=True)])
def test_a_model_hears_a_shorter_window_with_the_first_of_its_positions(
    options, dims, params, log_mel
):
    short = dataclasses.replace(dims, n_audio_ctx=12)
    cut = {"encoder": params["encoder"] | {"positions": params["encoder"]["positions"][:12]}}
    encode = jax.jit(whisper.encode, static_argnums=(1, 3))
    window = log_mel[:, : short.n_frames]
    encoder_states = encode(params, dims, window, options)
    assert encoder_states.shape == (2, 12, dims.n_state)
    np.testing.assert_array_equal(encoder_states, encode(cut, short, window, options))


def test_a_window_longer_than_the_models_is_refused(dims, params, log_mel):
    longer = np.pad(log_mel, ((0, 0), (0, 2), (0, 0)))
    with pytest.raises(ValueError, match="21 encoder positions; the model has 20"):
        jax.eval_shape(lambda x: whisper.encode(params, dims, x, FLOAT32), longer)


def test_norm_keeps_its_digits_where_the_mean_is_large():
    """Whisper's residual stream has such positions; E[x^2] - E[x]^2 would give noise."""
    x = 1000.0 + np.random.default_rng(4).normal(size=(3, 64))
    x = x.astype(np.float32)
    p = {"scale": np.ones(64, "f4"), "bias": np.zeros(64, "f4")}
    ours = Norm(FLOAT32).apply({"params": p}, x)
    np.testing.assert_allclose(ours, _norm(p, x.astype(np.float64)), atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 5), (3,)])
def test_sums_in_blocks_are_those_of_the_product_and_so_is_their_gradient(shape):
    """The weight of a projection meets all rows; the values of attention are each row's own."""
    generator = np.random.default_rng(0)
    left = generator.normal(size=(*shape, 4, 600)).astype(np.float32)
    for rows in ((), shape):
        right = generator.normal(size=(*rows, 600, 3)).astype(np.float32)
        value, gradient = jax.value_and_grad(
            lambda a, b: jnp.sum(jnp.sin(sum_in_blocks(a, b))), argnums=(0, 1)
        )(left, right)
        wanted = jax.value_and_grad(lambda a, b: jnp.sum(jnp.sin(a @ b)), argnums=(0, 1))
        wanted_value, wanted_gradient = wanted(left, right)
        np.testing.assert_allclose(value, wanted_value, rtol=1e-4)
        for ours, plain in zip(gradient, wanted_gradient, strict=True):
            np.testing.assert_allclose(ours, plain, atol=1e-3)
