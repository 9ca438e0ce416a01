"""Synthesises speech with espeak-ng, which comes with its voices in the wheel `espeakng-loader`."""

import ctypes
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import soxr

from fastwhisper_jax.audio.constants import SAMPLE_RATE_HZ
from fastwhisper_jax.errors import InputError

# speak_lib.h of espeak-ng 1.52.
_SYNCHRONOUS = 2
_OK = 0
_RATE, _PITCH = 1, 3
_UTF8 = 1
_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


@dataclasses.dataclass(frozen=True)
class Voice:
    """One speaker.

    Attributes:
        accent: a voice of espeak-ng, such as "en-us".
        variant: a variant of the voice, such as "f2".
        pitch: 0 to 99.
    """

    accent: str
    variant: str
    pitch: int

    @property
    def name(self) -> str:
        return f"{self.accent}+{self.variant}"


def synthesise(text: str, voice: Voice, words_per_minute: int) -> np.ndarray:
    """Synthesises a text.

    The samples depend on the calls before, because espeak-ng carries random state from one call to
    the next. The same calls in the same order in a new process give the same samples.

    Args:
        text: the text.
        voice: the speaker.
        words_per_minute: speaking rate, 80 to 450.

    Returns:
        (A,) float32 at 16 kHz, in [-1, 1].

    Raises:
        InputError: the synthesiser does not start, or does not know the voice.
    """
    engine = start_synthesiser()
    samples = engine.speak(text, voice, words_per_minute).astype(np.float32) / 32768.0
    resampled = np.asarray(soxr.resample(samples, engine.rate_hz, SAMPLE_RATE_HZ), np.float32)
    return np.clip(resampled, -1.0, 1.0)  # resampling overshoots full scale by up to 0.5 %


@dataclasses.dataclass(frozen=True)
class _Engine:
    """espeak-ng. A process has only one, and it keeps state between calls."""

    library: Any
    rate_hz: int
    blocks: list[np.ndarray]
    callback: Callable[..., int]  # the library holds a bare pointer to it, so keep it alive

    def speak(self, text: str, voice: Voice, words_per_minute: int) -> np.ndarray:
        """Returns the samples of a text, (A,) int16 at `rate_hz`."""
        if self.library.espeak_SetVoiceByName(voice.name.encode()) != _OK:
            raise InputError(f"espeak-ng has no voice {voice.name}; install espeakng-loader 0.2.4")
        self.library.espeak_SetParameter(_RATE, words_per_minute, 0)
        self.library.espeak_SetParameter(_PITCH, voice.pitch, 0)
        self.blocks.clear()
        encoded = text.encode()
        self.library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, _UTF8, None, None)
        return np.concatenate([*self.blocks, np.zeros(0, np.int16)])


@functools.cache
def start_synthesiser() -> _Engine:
    """Starts espeak-ng. Otherwise the first call of `synthesise` starts it.

    Raises:
        InputError: espeak-ng cannot be started.
    """
    import espeakng_loader

    try:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
    except OSError as error:
        raise InputError(
            f"espeak-ng cannot be loaded ({error}); demo needs the espeakng-loader wheel of this "
            "platform: pip install --force-reinstall espeakng-loader"
        ) from error
    path = espeakng_loader.get_data_path().encode()
    rate_hz = library.espeak_Initialize(_SYNCHRONOUS, 0, path, 0)
    if rate_hz <= 0:
        raise InputError(
            f"espeak-ng cannot be started with its data in {path.decode()}; the path must be "
            "shorter than 150 characters: use a virtual environment nearer to the root"
        )
    blocks: list[np.ndarray] = []

    @_Callback
    def keep(samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    library.espeak_SetSynthCallback(keep)
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # its own seed is the clock
    return _Engine(library, rate_hz, blocks, keep)
