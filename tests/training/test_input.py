"""What reaches the step follows from seed and step; evaluation hears recordings as they are."""

import contextlib
import functools
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny_run as tiny

from fastwhisper_jax.audio.log_mel import log_mel_spectrogram
from fastwhisper_jax.config import DataConfig
from fastwhisper_jax.data.loader import audio_inputs
from fastwhisper_jax.distillation.assembly import make_batch_schedule
from fastwhisper_jax.training import input as feeding
from fastwhisper_jax.training.input import device_batches, local_rows, make_featurise
from fastwhisper_jax.training.sharding import make_mesh

AUGMENTED = DataConfig(time_masks=2, time_mask_frames=30, freq_masks=1, freq_mask_bins=4)


@pytest.fixture(scope="module")
def batch():
    noise = np.random.default_rng(0).normal(size=(2, tiny.TEACHER.n_samples)).astype(np.float32)
    return {"audio": noise, "frames": np.full(2, 100, np.int32), "labels": np.zeros((2, 4), "i4")}


@pytest.fixture(scope="module")
def featurise():
    return make_featurise(8, AUGMENTED, seed=3, augments=True)


def test_masks_depend_on_seed_and_step_only(batch, featurise):
    first, again, later = (featurise(batch, jnp.int32(step))["log_mel"] for step in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, later)
    same_seed = make_featurise(8, AUGMENTED, seed=3, augments=True)(batch, jnp.int32(5))
    np.testing.assert_array_equal(first, same_seed["log_mel"])
    other_seed = make_featurise(8, AUGMENTED, seed=4, augments=True)(batch, jnp.int32(5))
    assert not np.array_equal(first, other_seed["log_mel"])


def test_evaluation_is_not_augmented(batch, featurise):
    plain = jax.jit(log_mel_spectrogram, static_argnums=1)(batch["audio"], 8)
    evaluated = make_featurise(8, AUGMENTED, seed=3, augments=False)(batch, jnp.int32(5))
    np.testing.assert_allclose(evaluated["log_mel"], plain, atol=1e-5)
    assert not np.allclose(featurise(batch, jnp.int32(5))["log_mel"], plain, atol=1e-2)


def test_audio_is_replaced_and_all_else_passes(batch, featurise):
    made = featurise(batch, jnp.int32(0))
    assert made.keys() == {"log_mel", "labels"}
    assert made["log_mel"].shape == (2, 100, 8)
    cached = {"encoder_states": np.ones((2, 3, 4), np.float16), "labels": batch["labels"]}
    passed = featurise(cached, jnp.int32(0))
    assert passed.keys() == cached.keys()
    np.testing.assert_array_equal(passed["encoder_states"], cached["encoder_states"])


def test_batches_from_a_later_step_are_the_rest_of_all_batches(audio, featurise):
    corpus = tiny.make_corpus(audio)
    schedule = make_batch_schedule(tiny.make_config(steps=7), corpus, tiny.TEACHER.context_seconds)

    def batches_from(step):
        batches = device_batches(
            schedule,
            corpus,
            functools.partial(audio_inputs, samples=tiny.TEACHER.n_samples),
            featurise,
            tiny.make_mesh_of_one(),
            end_of_text=tiny.END_OF_TEXT,
            start_step=step,
        )
        return [jax.device_get(batch) for batch in batches]

    whole, rest = batches_from(0), batches_from(4)
    assert (len(whole), len(rest)) == (7, 3)
    for ours, theirs in zip(rest, whole[4:], strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])
    assert batches_from(7) == []


def test_the_only_process_reads_every_row():
    assert local_rows(make_mesh(4, 2), 16) == tuple(range(16))
    assert local_rows(tiny.make_mesh_of_one(), 3) == (0, 1, 2)


def test_rows_follow_the_devices_and_not_the_number_of_the_process(monkeypatch):
    """On a mesh whose devices lie in another order than their processes."""
    devices = jax.devices()
    mesh = make_mesh(4, 2, devices=[devices[i] for i in (0, 4, 1, 5, 2, 6, 3, 7)])
    ours = set(devices[:4])
    sharding = type(feeding.batch_sharding(mesh))

    def addressable(self, shape):
        indices = self.devices_indices_map(shape)
        return {device: index for device, index in indices.items() if device in ours}

    monkeypatch.setattr(sharding, "addressable_devices_indices_map", addressable)
    assert local_rows(mesh, 16) == (0, 1, 4, 5, 8, 9, 12, 13)


def test_reading_ends_where_the_loop_raises(audio, featurise):
    before = threading.active_count()
    corpus = tiny.make_corpus(audio)
    batches = device_batches(
        make_batch_schedule(tiny.make_config(steps=50), corpus, tiny.TEACHER.context_seconds),
        corpus,
        functools.partial(audio_inputs, samples=tiny.TEACHER.n_samples),
        featurise,
        tiny.make_mesh_of_one(),
        end_of_text=tiny.END_OF_TEXT,
    )
    with contextlib.suppress(ZeroDivisionError), contextlib.closing(batches):
        next(batches)
        raise ZeroDivisionError
    until = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() <= before
