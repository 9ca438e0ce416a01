import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastwhisper_jax.audio.files import load_audio, pad_or_trim
from fastwhisper_jax.audio.log_mel import log_mel_spectrogram, mel_filters
from fastwhisper_jax.audio.spec_augment import spec_augment
from fastwhisper_jax.data.manifest import read_manifest

_MASKS = {"time_masks": 2, "time_mask_frames": 20, "freq_masks": 2, "freq_mask_bins": 10}
_augment = jax.jit(
    spec_augment,
    static_argnames=("time_masks", "time_mask_frames", "freq_masks", "freq_mask_bins"),
)


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _transformers_extractor(n_mels: int):
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(feature_size=n_mels)


def _log_mel(audio: np.ndarray, n_mels: int) -> np.ndarray:
    return np.asarray(jax.jit(log_mel_spectrogram, static_argnums=1)(audio, n_mels))


@pytest.mark.parametrize("n_mels", [80, 128])
def test_mel_filters_equal_those_of_transformers(n_mels):
    theirs = _transformers_extractor(n_mels).mel_filters
    np.testing.assert_allclose(mel_filters(n_mels), theirs, atol=1e-8)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_log_mel_agrees_with_transformers(n_mels):
    audio = 0.1 * _noise(2, 16_000 * 30)
    audio[1, 16_000:] = 0.0
    theirs = _transformers_extractor(n_mels)(list(audio), sampling_rate=16_000, return_tensors="np")
    ours = _log_mel(audio, n_mels)
    assert ours.shape == (2, 3000, n_mels)
    np.testing.assert_allclose(ours.swapaxes(1, 2), theirs.input_features, atol=1e-4)


@pytest.mark.real
@pytest.mark.parametrize("n_mels", [80, 128])
def test_log_mel_agrees_with_transformers_on_real_clips(real_data, n_mels):
    utterances = read_manifest(real_data / "asterisk-en" / "test.jsonl")[:20]
    audio = np.stack([pad_or_trim(load_audio(str(u.audio)), 480_000) for u in utterances])
    extractor = _transformers_extractor(n_mels)
    theirs = extractor(list(audio), sampling_rate=16_000, return_tensors="np").input_features
    apart = np.abs(_log_mel(audio, n_mels).swapaxes(1, 2) - theirs)
    print(f"{n_mels} bins: max {apart.max():.2e}, mean {apart.mean():.2e}")
    assert apart.max() <= 1e-4
    assert apart.mean() <= 1e-5


def test_log_mel_of_a_row_does_not_depend_on_the_other_rows():
    audio = _noise(3, 16_000) * np.array([[1e-3], [1.0], [10.0]], np.float32)
    together = _log_mel(audio, 80)
    for row in range(3):
        np.testing.assert_allclose(_log_mel(audio[row : row + 1], 80)[0], together[row], atol=1e-5)


def test_log_mel_of_silence_is_flat():
    np.testing.assert_array_equal(_log_mel(np.zeros((1, 1600), np.float32), 80), -1.5)


def test_masks_are_the_same_for_the_same_key_and_differ_between_keys_and_rows():
    log_mel = jnp.broadcast_to(jnp.asarray(_noise(1, 100, 80)), (4, 100, 80))
    first = _augment(log_mel, jax.random.key(0), **_MASKS)
    np.testing.assert_array_equal(first, _augment(log_mel, jax.random.key(0), **_MASKS))
    assert not np.array_equal(first, _augment(log_mel, jax.random.key(1), **_MASKS))
    assert not np.array_equal(first[0], first[1])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_masked_value_is_the_mean_of_its_row_and_no_other_value_changes(dtype):
    log_mel = jnp.asarray(_noise(4, 100, 80), dtype)
    masked = _augment(log_mel, jax.random.key(3), **_MASKS)
    assert masked.shape == log_mel.shape
    assert masked.dtype == dtype
    mean = np.asarray(log_mel, np.float32).mean(axis=(1, 2))
    changed = np.asarray(masked != log_mel)
    assert changed.any(axis=(1, 2)).all()
    for row in range(4):
        np.testing.assert_allclose(
            np.asarray(masked[row], np.float32)[changed[row]], mean[row], atol=1e-3
        )


def test_without_masks_spec_augment_is_the_identity():
    log_mel = jnp.asarray(_noise(2, 50, 80))
    none = {"time_masks": 0, "time_mask_frames": 20, "freq_masks": 0, "freq_mask_bins": 10}
    np.testing.assert_array_equal(_augment(log_mel, jax.random.key(0), **none), log_mel)
    empty = {"time_masks": 2, "time_mask_frames": 0, "freq_masks": 2, "freq_mask_bins": 0}
    np.testing.assert_array_equal(_augment(log_mel, jax.random.key(0), **empty), log_mel)


def test_masks_lie_within_the_speech_frames():
    log_mel = jnp.asarray(_noise(3, 200, 80))
    frames = jnp.asarray([0, 40, 200])
    masks = {**_MASKS, "time_mask_frames": 60}
    masked = np.zeros((3, 200), bool)
    for seed in range(20):
        out = _augment(log_mel, jax.random.key(seed), frames=frames, **masks)
        masked |= np.asarray(out != log_mel).any(axis=2)
    assert not masked[0].any()
    assert masked[1, :40].all()
    assert not masked[1, 40:].any()
    assert masked[2].all()


def test_a_time_mask_is_at_most_its_fraction_of_the_speech():
    log_mel = jnp.asarray(_noise(1, 200, 80))
    widths = []
    for seed in range(30):
        out = _augment(
            log_mel,
            jax.random.key(seed),
            time_masks=1,
            time_mask_frames=60,
            freq_masks=0,
            freq_mask_bins=0,
            time_mask_fraction=0.25,
            frames=jnp.asarray([40]),
        )
        widths.append(int(np.asarray(out != log_mel).any(axis=2).sum()))
    assert max(widths) == 10
    assert min(widths) == 0
