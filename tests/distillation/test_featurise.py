"""What reaches the step follows from seed and step; evaluation hears recordings as they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny_run as tiny

from fastwhisper_jax.audio.log_mel import log_mel_spectrogram
from fastwhisper_jax.config import DataConfig
from fastwhisper_jax.distillation.featurise import make_featurise

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


def test_a_teacher_hears_its_own_window_without_masks(batch):
    """Whatever the student hears of it."""
    plain = jax.jit(log_mel_spectrogram, static_argnums=1)
    window = {"audio": batch["audio"][:, :8_000], "frames": np.full(2, 50, np.int32)}
    whole = np.pad(window["audio"], ((0, 0), (0, 8_000)))
    for augments in (True, False):
        data = AUGMENTED if augments else DataConfig()
        made = make_featurise(8, data, seed=3, augments=True, teacher_seconds=1.0)(window, 5)
        assert made.keys() == {"log_mel", "teacher_log_mel"}
        np.testing.assert_allclose(made["teacher_log_mel"], plain(whole, 8), atol=1e-5)
        heard = plain(window["audio"], 8)
        assert made["log_mel"].shape == heard.shape == (2, 50, 8)
        assert np.allclose(made["log_mel"], heard, atol=1e-5) != augments
    # In the teacher's own window it shares what the student hears, but for the masks.
    masked = make_featurise(8, AUGMENTED, seed=3, augments=True, teacher_seconds=1.0)(batch, 5)
    np.testing.assert_allclose(masked["teacher_log_mel"], plain(batch["audio"], 8), atol=1e-5)
    shared = make_featurise(8, DataConfig(), seed=3, augments=True, teacher_seconds=1.0)(batch, 5)
    assert shared.keys() == {"log_mel", "labels"}


def test_audio_is_replaced_and_all_else_passes(batch, featurise):
    made = featurise(batch, jnp.int32(0))
    assert made.keys() == {"log_mel", "labels"}
    assert made["log_mel"].shape == (2, 100, 8)
    keeps = make_featurise(8, AUGMENTED, seed=3, augments=True, keeps_frames=True)
    kept = keeps(batch, jnp.int32(0))
    np.testing.assert_array_equal(kept.pop("speech_frames"), batch["frames"])
    assert kept.keys() == made.keys()
    cached = {"encoder_states": np.ones((2, 3, 4), np.float16), "labels": batch["labels"]}
    passed = featurise(cached, jnp.int32(0))
    assert passed.keys() == cached.keys()
    np.testing.assert_array_equal(passed["encoder_states"], cached["encoder_states"])
