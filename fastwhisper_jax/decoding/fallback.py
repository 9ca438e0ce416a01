"""When a window's decoding has failed, and what to try then."""

import dataclasses
import zlib

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclasses.dataclass(frozen=True)
class DecodedWindow:
    """A window's tokens and the figures by which they are judged.

    Attributes:
        tokens: emitted, without end of text.
        log_probabilities: of each, at temperature 1.
        text: of the tokens.
        avg_logprob: mean over the tokens and the end of text.
        compression_ratio: bytes of the text over bytes of its zlib compression.
        no_speech_prob: probability that nobody speaks.
        temperature: at which it was decoded.
    """

    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    text: str
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    temperature: float


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """What a decoding must meet, and what is tried in order until one does.

    Attributes:
        temperatures: of the attempts; the last one's result is taken as it is.
        compression_ratio: above it, the text repeats itself.
        avg_logprob: below it, the model is unsure.
        no_speech_prob: above it, an unsure model is hearing silence.
    """

    temperatures: tuple[float, ...] = TEMPERATURES
    compression_ratio: float = 2.4
    avg_logprob: float = -1.0
    no_speech_prob: float = 0.6


def compression_ratio(text: str) -> float:
    """Bytes of the text over bytes of its zlib compression; high where it repeats itself."""
    encoded = text.encode("utf-8")
    return len(encoded) / len(zlib.compress(encoded))


def is_silent(window: DecodedWindow, thresholds: Thresholds) -> bool:
    """Whether nobody speaks: the model hears no speech and is unsure of its text."""
    return (
        window.no_speech_prob > thresholds.no_speech_prob
        and window.avg_logprob <= thresholds.avg_logprob
    )


def needs_fallback(window: DecodedWindow, thresholds: Thresholds) -> bool:
    """Whether to decode the window again, at the next temperature."""
    is_unsure = window.avg_logprob < thresholds.avg_logprob
    if is_unsure and window.no_speech_prob > thresholds.no_speech_prob:
        return False
    return is_unsure or window.compression_ratio > thresholds.compression_ratio
