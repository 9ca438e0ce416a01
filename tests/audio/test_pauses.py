import numpy as np
import pytest

from fastwhisper_jax.audio.pauses import speech_segments

SPEECH, NOISE = -1.0, -6.0


def loudness(*parts, seed=0):
    """(frames, log10 power) of each part, with a little unrest."""
    generator = np.random.default_rng(seed)
    drawn = [level + generator.normal(scale=0.2, size=frames) for frames, level in parts]
    return np.concatenate(drawn).astype(np.float32)


def test_pauses_are_left_out_but_for_their_margins():
    found = speech_segments(loudness((100, NOISE), (300, SPEECH), (200, NOISE), (50, SPEECH)), 3000)
    np.testing.assert_allclose(found, [(80, 420), (580, 650)], atol=3)


def test_a_short_pause_does_not_cut_a_sentence():
    assert len(speech_segments(loudness((100, SPEECH), (40, NOISE), (100, SPEECH)), 3000)) == 1
    assert len(speech_segments(loudness((100, SPEECH), (70, NOISE), (100, SPEECH)), 3000)) == 2


def test_a_click_is_no_piece():
    assert speech_segments(
        loudness((200, NOISE), (3, SPEECH), (200, NOISE), (100, SPEECH)), 3000
    ) == [pytest.approx((383, 503), abs=3)]


def test_what_is_longer_than_a_window_is_cut_where_it_is_quietest():
    one, dip, rest = (2500, SPEECH), (20, SPEECH - 1.5), (1000, SPEECH)
    found = speech_segments(loudness(one, dip, rest), 3000)
    assert found[0][0] == 0 and found[-1][1] == 3520
    assert found[0][1] == found[1][0] == pytest.approx(2510, abs=10)


@pytest.mark.parametrize("frames", [3000, 3001, 20_000])
def test_steady_speech_is_tiled_by_pieces_of_a_window_at_most(frames):
    found = speech_segments(loudness((frames, SPEECH)), 3000)
    assert found[0][0] == 0 and found[-1][1] == frames
    for (_, end), (start, _) in zip(found, found[1:], strict=False):
        assert end == start
    assert all(0 < end - start <= 3000 for start, end in found)


def test_the_level_of_speech_does_not_depend_on_how_long_silence_is():
    few, many = (
        speech_segments(loudness((200, SPEECH), (silence, NOISE)), 3000)
        for silence in (200, 50_000)
    )
    assert few == many


def test_speech_in_loud_noise_is_not_left_out():
    """8 dB above the noise: cutting there would lose words."""
    found = speech_segments(loudness((300, SPEECH - 0.8), (300, SPEECH), (300, SPEECH - 0.8)), 3000)
    assert found == [(0, 900)]


@pytest.mark.parametrize("frames", [0, 1, 500])
def test_digital_silence_has_no_pieces(frames):
    assert speech_segments(np.full(frames, -10.0, np.float32), 3000) == []
