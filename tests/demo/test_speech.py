"""Synthesised speech is 16 kHz, audible, and the same from every new process."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from fastwhisper_jax.demo.corpus import SEEN_VOICES, SLOWEST, TEACHER_VOICES, UNSEEN_VOICES
from fastwhisper_jax.demo.speech import Voice, synthesise
from fastwhisper_jax.errors import InputError

pytestmark = pytest.mark.usefixtures("speaks")
LONG = "the plumber is coming on Wednesday at quarter past seven"

SCRIPT = f"""
import hashlib
from fastwhisper_jax.demo.corpus import SEEN_VOICES
from fastwhisper_jax.demo.speech import synthesise
total = hashlib.sha256()
for index, voice in enumerate(SEEN_VOICES):
    total.update(synthesise({LONG!r}, voice, 150 + index).tobytes())
print(total.hexdigest())
"""


def test_the_same_calls_in_a_fresh_process_give_the_same_samples():
    command = [sys.executable, "-c", SCRIPT]
    first, second = (subprocess.check_output(command, text=True) for _ in range(2))
    assert first == second and len(first.strip()) == hashlib.sha256().digest_size * 2


@pytest.mark.parametrize(
    "voice", [*TEACHER_VOICES, *SEEN_VOICES, *UNSEEN_VOICES], ids=lambda voice: voice.name
)
def test_every_voice_speaks_audibly_and_within_the_window(voice):
    samples = synthesise(LONG, voice, SLOWEST)
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert 2.0 < len(samples) / 16_000 < 4.0
    assert 0.02 < np.sqrt(np.mean(samples**2)) and np.abs(samples).max() <= 1.0


def test_a_faster_rate_is_shorter_and_most_power_is_below_4_khz():
    slow, fast = (synthesise(LONG, SEEN_VOICES[0], rate) for rate in (140, 200))
    assert 1.2 < len(slow) / len(fast) < 1.7
    power = np.abs(np.fft.rfft(slow)) ** 2
    hz = np.fft.rfftfreq(len(slow), 1 / 16_000)
    assert power[hz < 4_000].sum() > 0.7 * power.sum()


def test_nobody_trains_on_an_unseen_voice_or_on_its_variant():
    trained = {voice.variant for voice in (*TEACHER_VOICES, *SEEN_VOICES)}
    assert not trained & {voice.variant for voice in UNSEEN_VOICES}
    assert not {voice.variant for voice in TEACHER_VOICES} & {v.variant for v in SEEN_VOICES}


def test_an_unknown_voice_is_named():
    with pytest.raises(InputError, match="no voice en-us.elvish"):
        synthesise("hello", Voice("en-us-elvish", "m1", 50), 150)
