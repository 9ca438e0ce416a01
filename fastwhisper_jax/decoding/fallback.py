"""Temperature fallback: when a window's decoding has failed, and what to try next."""

import dataclasses
import zlib

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclasses.dataclass(frozen=True)
class DecodedWindow:
    """A window's tokens, and the numbers by which they are judged.

    Attributes:
        tokens: what was emitted, without end of text.
        log_probs: log-probability of each token, at temperature 1.
        text: what the tokens say.
        avg_logprob: mean log-probability of the tokens and the end of text.
        compression_ratio: bytes of the text / bytes of its zlib compression.
        no_speech_prob: probability that nobody speaks.
        temperature: the temperature at which the window was decoded.
    """

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    text: str
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    temperature: float


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """The limits that a decoded window must keep, and the temperatures to try until it does.

    Attributes:
        temperatures: one for each attempt, in order; the result of the last one is always kept.
        compression_ratio: above it, the text repeats itself.
        avg_logprob: below it, the model is unsure.
        no_speech_prob: above it, a window of which the model is unsure is silent.
    """

    temperatures: tuple[float, ...] = TEMPERATURES
    compression_ratio: float = 2.4
    avg_logprob: float = -1.0
    no_speech_prob: float = 0.6


def compression_ratio(text: str) -> float:
    """Bytes of the text / bytes of its zlib compression; high for a text that repeats itself."""
    encoded = text.encode("utf-8")
    return len(encoded) / len(zlib.compress(encoded))


def is_silent(window: DecodedWindow, thresholds: Thresholds) -> bool:
    """Whether nobody speaks: the model hears no speech, and it is unsure of its text."""
    return (
        window.no_speech_prob > thresholds.no_speech_prob
        and window.avg_logprob <= thresholds.avg_logprob
    )


def needs_fallback(window: DecodedWindow, thresholds: Thresholds) -> bool:
    """Whether the window must be decoded again, at the next temperature."""
    is_unsure = window.avg_logprob < thresholds.avg_logprob
    if is_unsure and window.no_speech_prob > thresholds.no_speech_prob:
        return False
    return is_unsure or window.compression_ratio > thresholds.compression_ratio
