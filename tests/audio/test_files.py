import os

import numpy as np
import pytest
import soundfile

from fastwhisper_jax.audio.files import (
    EmbeddedAudio,
    audio_blocks,
    audio_seconds,
    load_audio,
    pad_or_trim,
)
from fastwhisper_jax.errors import InputError


def _tone(seconds: float, rate: int, hz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype("f4")


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_any_rate_and_channel_count_becomes_16_khz_mono(tmp_path, rate, channels):
    path = str(tmp_path / "a.wav")
    tone = _tone(0.5, rate)
    soundfile.write(path, np.stack([tone] * channels, axis=1), rate, subtype="FLOAT")
    audio = load_audio(path)
    assert audio.dtype == np.float32
    assert audio.shape == (8_000,)
    middle = slice(1_000, 7_000)  # a resampler's filter rings at the ends
    np.testing.assert_allclose(audio[middle], _tone(0.5, 16_000)[middle], atol=1e-3)


def test_channels_are_averaged(tmp_path):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, np.tile([[0.5, -0.25]], (100, 1)), 16_000, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(path), np.full(100, 0.125, np.float32))


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_a_part_equals_the_slice_of_the_whole(tmp_path, suffix):
    path = str(tmp_path / f"a.{suffix}")
    soundfile.write(path, _tone(1.0, 16_000), 16_000)
    np.testing.assert_array_equal(load_audio(path, 0.25, 0.5), load_audio(path)[4_000:12_000])


def test_a_rounded_duration_reads_to_the_end(tmp_path):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, _tone(1.0, 16_000)[:15_997], 16_000)
    assert len(load_audio(path, 0.0, 0.999)) == 15_997


def test_embedded_audio_equals_the_file(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, _tone(0.3, 16_000), 16_000)
    embedded = EmbeddedAudio("set row 0", path.read_bytes)
    np.testing.assert_array_equal(load_audio(embedded), load_audio(str(path)))
    assert audio_seconds(embedded) == audio_seconds(str(path)) == 0.3


def test_padding_adds_zeros_after_and_trimming_keeps_the_start():
    audio = np.arange(1, 4, dtype=np.float32)
    np.testing.assert_array_equal(pad_or_trim(audio, 5), [1, 2, 3, 0, 0])
    np.testing.assert_array_equal(pad_or_trim(audio, 2), [1, 2])
    assert pad_or_trim(audio, 5).dtype == np.float32


def test_a_file_whose_name_is_not_utf_8_is_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", _tone(0.3, 16_000), 16_000)
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    (tmp_path / "a.wav").rename(path)
    assert load_audio(path).shape == (4_800,)


def _missing(folder):
    return folder / "none.wav"


def _text(folder):
    (folder / "text.wav").write_text("this is no audio\n" * 20)
    return folder / "text.wav"


def _headerless(folder):
    (folder / "noise.raw").write_bytes(b"\0" * 100)
    return folder / "noise.raw"


def _empty_file(folder):
    (folder / "empty.wav").touch()
    return folder / "empty.wav"


def _no_samples(folder):
    soundfile.write(folder / "silent.wav", np.zeros(0, np.float32), 16_000)
    return folder / "silent.wav"


def _not_finite(folder):
    soundfile.write(folder / "nan.wav", np.full(100, np.nan, "f4"), 16_000, subtype="FLOAT")
    return folder / "nan.wav"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_missing, "no audio file"),
        (_text, "cannot be read as audio"),
        (_headerless, "cannot be read as audio"),
        (_empty_file, "cannot be read as audio"),
        (_no_samples, "is empty"),
        (_not_finite, "not finite"),
    ],
)
def test_a_file_that_is_not_audio_is_named_in_one_line(tmp_path, make, says):
    path = make(tmp_path)
    with pytest.raises(InputError, match=says) as caught:
        load_audio(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    if make is not _not_finite:
        with pytest.raises(InputError, match=says):
            audio_seconds(str(path))


def test_an_offset_after_the_end_is_an_input_error(tmp_path):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, _tone(1.0, 16_000), 16_000)
    with pytest.raises(InputError, match="is 1.000 s long and offset is 2 s"):
        load_audio(path, 2.0)


def test_a_truncated_mp3_is_an_input_error(tmp_path):
    """Its header names the original length, and the rest decodes without an error."""
    path = tmp_path / "a.mp3"
    soundfile.write(path, _tone(10.0, 16_000), 16_000)
    whole = path.read_bytes()
    assert load_audio(str(path)).shape == (160_000,)
    path.write_bytes(whole[: len(whole) * 6 // 10])
    assert audio_seconds(str(path)) == 10.0
    assert load_audio(str(path), 1.0, 4.0).shape == (64_000,)
    for part in ((), (1.0, 8.0), (8.0, 1.0)):
        with pytest.raises(InputError, match=r"a\.mp3 ends before .* it must be complete"):
            load_audio(str(path), *part)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_an_mp3_whose_length_is_estimated_is_not_taken_for_a_truncated_one(tmp_path, rate):
    """Without the frame that counts the others, libsndfile's estimate is slightly too long."""
    path = tmp_path / "a.mp3"
    options = {"bitrate_mode": "CONSTANT", "compression_level": 0.5}
    soundfile.write(path, _tone(5.0, rate), rate, **options)
    data = path.read_bytes()
    path.write_bytes(data[data.index(data[:2], 2) :])
    assert abs(len(load_audio(str(path))) - 80_000) < 3_200


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_blocks_together_equal_the_whole(tmp_path, rate):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, np.stack([_tone(3.7, rate)] * 2, axis=1), rate)
    blocks = list(audio_blocks(path, 1, 0.25, 3.2))
    assert len(blocks) == 4
    np.testing.assert_array_equal(np.concatenate(blocks), load_audio(path, 0.25, 3.2))


def test_a_damaged_flac_is_an_input_error(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).normal(scale=0.1, size=80_000), 16_000)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"a\.flac cannot be read to its end .*: copy or convert"):
        load_audio(str(path))
