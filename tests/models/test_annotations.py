"""Array annotations are true, are checked in tests, and cost users nothing."""

import inspect
import subprocess
import sys
import typing
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import jaxtyping
import pytest
from beartype import beartype
from support import loss_batch

from fastwhisper_jax.audio import log_mel, spec_augment
from fastwhisper_jax.audio.constants import HOP_SAMPLES
from fastwhisper_jax.losses import askd, closed_form
from fastwhisper_jax.models import whisper as unchecked_whisper
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.whisper import cached_decoder as unchecked_decoder


def _checked(module, *names):
    """The functions of a module, with their annotations checked at each call."""
    check = jaxtyping.jaxtyped(typechecker=beartype)
    return SimpleNamespace(**{name: check(inspect.unwrap(getattr(module, name))) for name in names})


whisper = _checked(unchecked_whisper, "encode", "decode", "logits")
cached_decoder = _checked(unchecked_decoder, "unstack_layers", "start", "extend")
features = _checked(log_mel, "mel_filters", "log_mel_spectrogram", "log10_mel")
augment = _checked(spec_augment, "spec_augment").spec_augment
losses = _checked(askd, "askd_losses", "cross_entropy", "kl_divergence")
losses_and_gradient = _checked(closed_form, "losses_and_gradient").losses_and_gradient
FLOAT32 = ModelOptions()
B, T = 2, 3


def _shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def _tokens(*sizes):
    return _shape(*sizes, dtype=jnp.int32)


def _refuses(function, *arguments):
    with pytest.raises(jaxtyping.TypeCheckError):
        jax.eval_shape(function, *arguments)


def test_the_features_take_and_return_what_they_say():
    n_mels, frames = 8, 5
    assert features.mel_filters(n_mels).shape == (201, n_mels)
    audio = _shape(B, frames * HOP_SAMPLES)
    found = jax.eval_shape(lambda x: features.log_mel_spectrogram(x, n_mels), audio)
    assert found.shape == (B, frames, n_mels)
    _refuses(lambda x: features.log_mel_spectrogram(x, n_mels), _shape(frames * HOP_SAMPLES))
    _refuses(lambda x: features.log10_mel(x, n_mels), _tokens(B, frames * HOP_SAMPLES))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_spec_augment_takes_and_returns_what_it_says(dtype):
    masks = {"time_masks": 1, "time_mask_frames": 2, "freq_masks": 1, "freq_mask_bins": 2}

    def run(features, frames):
        return augment(features, jax.random.key(0), frames=frames, **masks)

    masked = jax.eval_shape(run, _shape(B, 5, 8, dtype=dtype), _tokens(B))
    assert (masked.shape, masked.dtype) == ((B, 5, 8), dtype)
    _refuses(run, _shape(5, 8), _tokens(B))
    _refuses(run, _shape(B, 5, 8), _tokens(B + 1))
    _refuses(run, _shape(B, 5, 8), _shape(B))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_forward_functions_take_and_return_what_they_say(dims, params, dtype):
    options = ModelOptions(dtype)

    def forward(params, log_mel, tokens):
        encoder_states = whisper.encode(params, dims, log_mel, options)
        states = whisper.decode(params, dims, tokens, encoder_states, options)
        return encoder_states, states, whisper.logits(params, states)

    log_mel = _shape(B, dims.n_frames, dims.n_mels)
    shapes = [x.shape for x in jax.eval_shape(forward, params, log_mel, _tokens(B, T))]
    assert shapes == [
        (B, dims.n_audio_ctx, dims.n_state),
        (B, T, dims.n_state),
        (B, T, dims.n_vocab),
    ]


def test_the_forward_functions_refuse_other_arrays(dims, params):
    encoder_states = _shape(B, dims.n_audio_ctx, dims.n_state)
    _refuses(lambda x: whisper.encode(params, dims, x, FLOAT32), _shape(B, dims.n_frames))

    def decode(tokens, encoder_states):
        return whisper.decode(params, dims, tokens, encoder_states, FLOAT32)

    _refuses(decode, _tokens(T), encoder_states)
    _refuses(decode, _shape(B, T), encoder_states)
    _refuses(decode, _tokens(B + 1, T), encoder_states)
    _refuses(lambda x: whisper.logits(params, x), _tokens(B, T, dims.n_state))


def test_the_cached_decoder_takes_and_returns_what_it_says(dims, params):
    weights = jax.tree.map(jnp.asarray, params)

    def run(encoder_states, tokens, positions, mask):
        decoder = cached_decoder.unstack_layers(weights, dims, FLOAT32)
        cache = cached_decoder.start(decoder, dims, encoder_states, FLOAT32, max_length=8)
        return cached_decoder.extend(decoder, dims, cache, tokens, FLOAT32, positions, mask)

    encoder_states = _shape(B, dims.n_audio_ctx, dims.n_state)
    mask = _shape(B, 1, T, 8, dtype=jnp.bool_)
    arrays = [encoder_states, _tokens(B, T), _tokens(B, T), mask]
    states, cache = jax.jit(run)(*(jnp.ones(x.shape, x.dtype) for x in arrays))
    assert states.shape == (B, T, dims.n_state)
    _assert_as_annotated([cache])
    _assert_as_annotated(cache.layers)
    _refuses(run, encoder_states, _tokens(B, T), _tokens(B, T + 1), mask)
    _refuses(run, encoder_states, _tokens(B, T), _tokens(B, T), _shape(B, T, 8, dtype=jnp.bool_))


def test_the_losses_of_tokens_refuse_other_arrays():
    logits, labels = _shape(B, T, 7), _tokens(B, T)
    weights, settings = loss_batch.WEIGHTS, {"temperature": 1.0, "adaptive": False}

    def in_closed_form(student, teacher, labels):
        return losses_and_gradient(student, teacher, None, labels, weights, **settings)

    def definition(student, teacher, labels):
        return losses.askd_losses(student, teacher, None, labels, weights)

    for function in (in_closed_form, definition):
        jax.eval_shape(function, logits, logits, labels)
        _refuses(function, logits, _shape(B, T, 8), labels)
        _refuses(function, logits, logits, _tokens(T))
        _refuses(function, logits, logits, _shape(B, T))
    _refuses(losses.cross_entropy, logits, _tokens(B, T, 7))
    _refuses(losses.kl_divergence, logits, _shape(B, 7))


def test_the_records_of_the_loss_hold_what_they_say():
    models, tokens = loss_batch.make_batch(B, T, 4, 7)
    _assert_as_annotated(models)
    sums = loss_batch.batch_sums(models, **tokens)
    _assert_as_annotated([sums])


def _assert_as_annotated(records):
    """Checks the fields of records against their annotations; one letter has one size in all."""

    @jaxtyping.jaxtyped(typechecker=None)
    def check():
        for record in records:
            for name, annotation in typing.get_type_hints(type(record)).items():
                if hasattr(annotation, "dims"):
                    assert isinstance(getattr(record, name), annotation), name

    check()


def test_a_program_that_uses_the_package_checks_nothing():
    program = (
        "import sys, fastwhisper_jax.models.whisper as w, fastwhisper_jax.losses.chunked; "
        "assert 'beartype' not in sys.modules and not hasattr(w.encode, '__wrapped__')"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
