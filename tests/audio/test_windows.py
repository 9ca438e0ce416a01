"""Speech goes to the shortest window that holds it."""

import pytest

from fastwhisper_jax.audio.windows import (
    Windows,
    check_windows,
    listed,
    window_frames,
    window_positions,
    window_samples,
)
from fastwhisper_jax.errors import InputError

WINDOWS = Windows((2.0, 4.0, 30.0), margin_seconds=0.5)


@pytest.mark.parametrize(
    ("seconds", "window"),
    [(0.0, 2.0), (1.5, 2.0), (1.51, 4.0), (3.5, 4.0), (3.6, 30.0), (29.9, 30.0), (31.0, 30.0)],
)
def test_speech_goes_to_the_shortest_window_that_holds_it_with_its_margin(seconds, window):
    assert WINDOWS.shortest_for(seconds) == window


def test_without_a_margin_speech_may_fill_its_window():
    assert Windows((2.0, 4.0)).shortest_for(2.0) == 2.0
    # A sum of rounded durations may be a little longer.
    assert Windows((2.0, 4.0)).shortest_for(2.0000005) == 2.0
    assert Windows((2.0, 4.0)).shortest_for(2.00001) == 4.0


def test_one_of_the_windows_can_be_chosen_for_all_speech():
    only = WINDOWS.only(4, "--window")
    assert {only.shortest_for(seconds) for seconds in (0.1, 3.9, 30.0)} == {4.0}
    message = r"^--window 8: the model hears windows of 2, 4 and 30 s; choose one of them$"
    with pytest.raises(InputError, match=message):
        WINDOWS.only(8.0, "--window")


def test_lengths_are_listed_in_words():
    assert listed((30.0,)) == "30"
    assert listed((0.5, 30.0)) == "0.5 and 30"
    assert listed(WINDOWS.seconds) == "2, 4 and 30"


@pytest.mark.parametrize("seconds", [0.02, 0.06, 0.58, 1.14, 4.1, 30.0])
def test_a_window_is_whole_positions_frames_and_samples(seconds):
    """Although 0.58 x 100 is 57.99... as floats."""
    positions = window_positions(seconds)
    assert positions == pytest.approx(50 * seconds)
    assert (window_frames(seconds), window_samples(seconds)) == (2 * positions, 320 * positions)
    check_windows([seconds], 30.0, "windows", "the model's")


@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        ((), r"windows=\(\) must be ascending lengths above 0, in seconds"),
        ((0.0, 30.0), "must be ascending"),
        ((4.0, 2.0), r"windows=\(4.0, 2.0\) must be ascending"),
        ((4.0, 4.0), "must be ascending"),
        ((0.25, 30.0), r"windows=\(0.25, 30.0\) must be whole encoder positions: .* of 0.02 s"),
        ((4.0, 30.02), r"windows=\(4.0, 30.02\) must be at most the model's 30 s"),
    ],
)
def test_windows_that_a_model_cannot_hear_are_refused(seconds, message):
    with pytest.raises(InputError, match=message):
        check_windows(seconds, 30.0, "windows", "the model's")
