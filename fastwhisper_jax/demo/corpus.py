"""Writes the demo's data: spoken sentences as FLAC files, and manifests that list them."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from fastwhisper_jax.audio.constants import SAMPLE_RATE_HZ
from fastwhisper_jax.demo.sentences import Part, sentences
from fastwhisper_jax.demo.speech import Voice, synthesise

# The shipped teacher was trained on these voices. The demo's students never hear them.
TEACHER_VOICES = (
    Voice("en-us", "m1", 45),
    Voice("en-us", "f1", 55),
    Voice("en-us", "m3", 40),
    Voice("en-us", "f4", 50),
    Voice("en", "m2", 50),
    Voice("en", "f2", 60),
    Voice("en", "m8", 45),
    Voice("en-gb-x-rp", "m4", 40),
    Voice("en-gb-x-rp", "f1", 45),
    Voice("en-gb-scotland", "m7", 50),
    Voice("en-gb-scotland", "f2", 50),
    Voice("en-us-nyc", "m2", 40),
    Voice("en-us-nyc", "f4", 60),
    Voice("en-gb-x-gbcwmd", "m1", 55),
)
# The students are trained on these voices, as yours would be on your own speakers.
SEEN_VOICES = (
    Voice("en-us", "belinda", 50),
    Voice("en", "victor", 50),
    Voice("en", "Andy", 50),
    Voice("en-us", "Annie", 50),
    Voice("en-029", "f5", 50),
    Voice("en-gb-scotland", "max", 50),
    Voice("en", "linda", 50),
    Voice("en-us-nyc", "f5", 50),
)
# No model hears these voices before the test.
UNSEEN_VOICES = (
    Voice("en-gb-x-gbclan", "m5", 50),
    Voice("en-us", "f3", 50),
    Voice("en-gb-scotland", "f3", 50),
    Voice("en-gb-x-rp", "m6", 50),
    Voice("en-gb-x-rp", "steph", 50),
    Voice("en-us", "Michael", 50),
)
SLOWEST, FASTEST = 145, 185  # words a minute


@dataclasses.dataclass(frozen=True)
class CorpusSpec:
    """A corpus to synthesise.

    Attributes:
        name: name of the manifest, NAME.jsonl, and of the folder with its recordings.
        part: which sentences, see `sentences`.
        voices: the speakers, who take turns.
        utterances: number of utterances.
        seed: seed for the choice of sentences and speaking rates.
    """

    name: str
    part: Part
    voices: tuple[Voice, ...]
    utterances: int
    seed: int


def write_corpus(spec: CorpusSpec, folder: Path, advance: Callable[[int], object]) -> Path:
    """Synthesises a corpus and writes it.

    Args:
        spec: the corpus.
        folder: where to write the recordings (16 kHz FLAC) and the manifest.
        advance: is called with 1 after each utterance.

    Returns:
        The path of the manifest.

    Raises:
        InputError: the synthesiser does not start, or does not know a voice.
    """
    (folder / spec.name).mkdir(parents=True)
    rates = np.random.PCG64(spec.seed).random_raw(spec.utterances) % (FASTEST - SLOWEST + 1)
    lines = []
    for index, text in enumerate(sentences(spec.part, spec.utterances, spec.seed)):
        voice = spec.voices[index % len(spec.voices)]
        samples = synthesise(text, voice, SLOWEST + int(rates[index]))
        name = f"{spec.name}/{index:05d}.flac"
        soundfile.write(folder / name, samples, SAMPLE_RATE_HZ)
        line = {
            "audio": name,
            "text": text,
            "language": "en",
            "duration": round(len(samples) / SAMPLE_RATE_HZ, 3),
            "voice": voice.name,
        }
        lines.append(json.dumps(line))
        advance(1)
    manifest = folder / f"{spec.name}.jsonl"
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return manifest
