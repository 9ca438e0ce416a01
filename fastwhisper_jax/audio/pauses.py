"""Finds the pauses of a recording by its loudness, so that it can be cut between words."""

import numpy as np

# All lengths are in mel frames of 10 ms. A shorter pause belongs to the sentence around it.
PAUSE_FRAMES = 50
# A shorter sound is not a word.
SHORTEST_FRAMES = 10
# A segment keeps this much of the pauses before and after it, because a word may begin quietly.
MARGIN_FRAMES = 20

# In decades of power (10 dB each) below the speech level.
_QUIETEST_SPEECH = 3.5
_LOUDEST_PAUSE = 1.0
# In decades of power; quieter than the last bit of 16-bit audio.
_DIGITAL_SILENCE = -9.0


def split_at_pauses(loudness: np.ndarray, window_frames: int) -> list[tuple[int, int]]:
    """Splits a recording into speech segments of at most one window, without the pauses.

    A frame is speech if its power p, smoothed, exceeds a threshold. The speech level is
    sum(p^2) / sum(p), which does not depend on how much silence there is. The threshold is 35 dB
    below the speech level, or 30 % of the way (in dB) from the noise to the speech level if that is
    louder. It is always at least 10 dB below the speech level, so that a very noisy recording loses
    nothing.

    A segment longer than a window is cut at the quietest frame of the window's second half.

    Args:
        loudness: (L,) log10 of the power of each mel frame.
        window_frames: length of the longest segment.

    Returns:
        First frame and last frame + 1 of each segment, in order. Empty for silence.
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
    segments: list[tuple[int, int]] = []
    for start, end in runs:
        if end - start >= SHORTEST_FRAMES:
            start, end = max(0, start - MARGIN_FRAMES), min(len(loudness), end + MARGIN_FRAMES)
            while end - start > window_frames:
                first = start + window_frames // 2
                cut = first + int(np.argmax(quietness[first : start + window_frames]))
                segments.append((start, cut))
                start = cut
            segments.append((start, end))
    return segments


def _mean_around(x: np.ndarray, width: int) -> np.ndarray:
    """The mean of the `width` values around each value; of fewer values at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(x)])
    positions = np.arange(len(x))
    first = np.maximum(positions - width // 2, 0)
    last = np.minimum(positions - width // 2 + width, len(x))
    return (sums[last] - sums[first]) / (last - first)
