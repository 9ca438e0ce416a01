"""Where a recording may be cut without cutting a word: at pauses, which its loudness shows."""

import numpy as np

# A shorter pause is part of a sentence; a shorter sound is no word. In mel frames of 10 ms.
PAUSE_FRAMES = 50
SHORTEST_FRAMES = 10
# What is kept of the pause on each side: the onset of a word may be quiet.
MARGIN_FRAMES = 20

# In decades of power, 10 dB each, below the level of speech.
_QUIETEST_SPEECH = 3.5
_LOUDEST_PAUSE = 1.0
# Quieter than the last bit of 16-bit audio.
_DIGITAL_SILENCE = -9.0


def speech_segments(loudness: np.ndarray, window_frames: int) -> list[tuple[int, int]]:
    """Cuts a recording into pieces of speech, at most a window long, and leaves the pauses out.

    Speech is what is louder than a threshold: 35 dB below the level of speech, or, where noise is
    louder than that, a third of the way up from the noise; at least 10 dB below the level, so that
    nothing is left out of a recording that is noisier still. The level is the power of the average
    unit of energy, sum p^2 / sum p, which silence does not change however long it is.

    A piece that is longer than a window is cut where the second half of the window is quietest.

    Args:
        loudness: (L,) log10 of the power of each mel frame.
        window_frames: the most frames of a piece.

    Returns:
        First frame and last frame + 1 of each piece, in order; none in silence.
    """
    if not len(loudness):
        return []
    power = 10.0 ** loudness.astype(np.float64)
    level = np.log10(np.square(power).sum() / power.sum())
    smooth = np.log10(_mean_around(power, 5))
    noise = np.percentile(smooth, 5)
    above_noise = min(noise + 0.3 * (level - noise), level - _LOUDEST_PAUSE)
    threshold = max(level - _QUIETEST_SPEECH, above_noise, _DIGITAL_SILENCE)
    steps = np.diff(np.concatenate([[0], smooth > threshold, [0]]).astype(int))
    runs: list[tuple[int, int]] = []
    starts, ends = np.flatnonzero(steps == 1).tolist(), np.flatnonzero(steps == -1).tolist()
    for start, end in zip(starts, ends, strict=True):
        if runs and start - runs[-1][1] < PAUSE_FRAMES:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    quietness = -_mean_around(power, 20)
    pieces: list[tuple[int, int]] = []
    for start, end in runs:
        if end - start >= SHORTEST_FRAMES:
            start, end = max(0, start - MARGIN_FRAMES), min(len(loudness), end + MARGIN_FRAMES)
            while end - start > window_frames:
                first = start + window_frames // 2
                cut = first + int(np.argmax(quietness[first : start + window_frames]))
                pieces.append((start, cut))
                start = cut
            pieces.append((start, end))
    return pieces


def _mean_around(x: np.ndarray, width: int) -> np.ndarray:
    """The mean of the `width` values around each one, fewer at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(x)])
    places = np.arange(len(x))
    first = np.maximum(places - width // 2, 0)
    last = np.minimum(places - width // 2 + width, len(x))
    return (sums[last] - sums[first]) / (last - first)
