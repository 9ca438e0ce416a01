import pytest

from fastwhisper_jax.transcription.segments import Span, split_window

BEGIN = 100
WINDOW = 3000


def at(seconds):
    return BEGIN + round(seconds / 0.02)


@pytest.mark.parametrize(
    ("tokens", "spans", "advance"),
    [
        pytest.param([], [Span(0, 0, 0, WINDOW)], WINDOW, id="nothing"),
        pytest.param([1, 2], [Span(0, 2, 0, WINDOW)], WINDOW, id="no timestamp"),
        pytest.param([at(0), 1, at(5)], [Span(0, 3, 0, 500)], WINDOW, id="one segment"),
        pytest.param([at(0), 1, 2], [Span(0, 3, 0, WINDOW)], WINDOW, id="cut off"),
        pytest.param(
            [at(1), 1, at(5), at(6), 2, at(8)],
            [Span(0, 3, 100, 500), Span(3, 6, 600, 800)],
            WINDOW,
            id="two segments, the last one whole",
        ),
        pytest.param(
            [at(0), 1, at(5), at(5), 2],
            [Span(0, 3, 0, 500)],
            500,
            id="the second is cut off and decoded again",
        ),
        pytest.param(
            [at(0), 1, at(5), at(6), 2, at(8), at(8)],
            [Span(0, 3, 0, 500), Span(3, 6, 600, 800)],
            800,
            id="ends in a pair",
        ),
    ],
)
def test_windows_are_cut_at_pairs_of_timestamps(tokens, spans, advance):
    assert split_window(tokens, BEGIN, WINDOW) == (tuple(spans), advance)


def test_a_pair_at_the_start_still_moves_on():
    assert split_window([at(0), at(0)], BEGIN, WINDOW)[1] > 0


def test_a_window_that_ends_with_the_recording_moves_on_by_what_is_left():
    assert split_window([at(0), 1, at(2)], BEGIN, 250) == ((Span(0, 3, 0, 200),), 250)
