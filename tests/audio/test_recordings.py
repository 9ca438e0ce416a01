import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from fastwhisper_jax.audio.files import pad_or_trim
from fastwhisper_jax.audio.log_mel import log_mel_spectrogram
from fastwhisper_jax.audio.recordings import RecordingFeatures
from fastwhisper_jax.errors import InputError

RATE = 16_000


def speech(seconds, seed=0):
    """Loud and quiet stretches of tones in noise."""
    generator = np.random.default_rng(seed)
    times = np.arange(round(seconds * RATE)) / RATE
    loudness = 0.3 * np.abs(np.sin(times / 7)) ** 3
    tone = np.sin(2 * np.pi * (300 + 200 * np.sin(times)) * times)
    return (loudness * tone + generator.normal(scale=1e-4, size=times.shape)).astype(np.float32)


def written(folder, audio, rate=RATE, name="a.wav"):
    path = folder / name
    soundfile.write(path, audio, rate, subtype="FLOAT")
    return str(path)


def test_a_long_recording_equals_its_whole_spectrogram(tmp_path):
    """Blocks leave no seams, and features are clamped at the maximum of the whole recording."""
    audio = speech(71.237)
    recording = RecordingFeatures(written(tmp_path, audio), 80, 3000)
    assert recording.frames == 7124
    assert recording.seconds == pytest.approx(71.237, abs=1e-4)
    # The last frames of a recording see silence after its end.
    whole = log_mel_spectrogram(jnp.asarray(pad_or_trim(audio, 72 * RATE))[None], 80)[0]
    for start in (0, 1, 2999, 3000, 4124):
        window = recording.window(start)
        assert window.shape == (3000, 80) and window.dtype == np.float32
        np.testing.assert_allclose(window, whole[start : start + 3000], atol=2e-5)
    recording.close()


def test_features_after_the_end_of_a_long_recording_are_zeros(tmp_path):
    recording = RecordingFeatures(written(tmp_path, speech(31.0)), 80, 3000)
    window = recording.window(2900)
    assert np.abs(window[:200]).sum() > 0
    np.testing.assert_array_equal(window[200:], 0.0)
    recording.close()


@pytest.mark.parametrize("seconds", [0.005, 0.5, 12.34, 30.0])
def test_a_short_recording_equals_a_padded_clip(tmp_path, seconds):
    """Transcription computes the same features as training and evaluation."""
    audio = speech(seconds)
    recording = RecordingFeatures(written(tmp_path, audio), 80, 3000)
    padded = log_mel_spectrogram(jnp.asarray(pad_or_trim(audio, 30 * RATE))[None], 80)[0]
    # The padded clip of exactly 30 s is reflected at its end; here silence follows it.
    same = 3000 if seconds < 30 else 2998
    np.testing.assert_allclose(recording.window(0)[:same], padded[:same], atol=2e-5)
    assert recording.frames == -(-len(audio) // 160)
    recording.close()


def test_other_rates_and_channels_are_resampled_and_mixed(tmp_path):
    times = np.arange(40 * 44_100) / 44_100
    left = 0.2 * np.sin(2 * np.pi * 440 * times)
    stereo = np.stack([left, np.zeros_like(left)], axis=1)
    ours = RecordingFeatures(written(tmp_path, stereo, 44_100, "s.wav"), 80, 3000)
    mono = 0.1 * np.sin(2 * np.pi * 440 * np.arange(40 * RATE) / RATE)
    direct = RecordingFeatures(written(tmp_path, mono, RATE, "m.wav"), 80, 3000)
    assert ours.frames == direct.frames == 4000
    middle = ours.window(500)[:, :40] - direct.window(500)[:, :40]
    assert np.abs(middle).max() < 0.02
    ours.close()
    direct.close()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "no audio file"), (b"not audio", "cannot be read as audio"), ("nan", "not finite")],
    ids=["missing", "not audio", "not finite"],
)
def test_a_recording_that_cannot_be_read_is_named(tmp_path, content, reason):
    path = tmp_path / "broken.wav"
    if content == "nan":
        soundfile.write(path, np.full(1600, np.nan, np.float32), RATE, subtype="FLOAT")
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"broken.wav.*{reason}|{reason}.*broken.wav"):
        RecordingFeatures(str(path), 80, 3000)


def test_a_truncated_recording_is_an_input_error(tmp_path):
    path = tmp_path / "a.mp3"
    soundfile.write(path, speech(70.0), RATE)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(InputError, match=r"a\.mp3 ends before 70.00 s"):
        RecordingFeatures(str(path), 80, 3000)
