"""Runs where the runtimes are installed: `peer_words.py RUNTIME MODEL SPEECH.npy`.

Prints, as one JSON line, [word, start, end] (seconds) of each word that transformers or
faster-whisper hears in 16 kHz samples. The end may be null.
"""

import json
import sys

import numpy as np


def transformers(model, speech):
    from transformers import pipeline

    transcribe = pipeline("automatic-speech-recognition", model=model)
    limits = {"language": "en", "max_new_tokens": 60}
    heard = transcribe(
        {"raw": speech, "sampling_rate": 16_000}, return_timestamps="word", generate_kwargs=limits
    )
    return [[chunk["text"], *chunk["timestamp"]] for chunk in heard["chunks"]]


def faster_whisper(model, speech):
    from faster_whisper import WhisperModel

    segments, _ = WhisperModel(model, device="cpu", compute_type="float32").transcribe(
        speech, language="en", word_timestamps=True, temperature=0.0, max_new_tokens=60
    )
    return [[word.word, word.start, word.end] for segment in segments for word in segment.words]


runtime, folder, speech_path = sys.argv[1:]
words = {"transformers": transformers, "faster_whisper": faster_whisper}[runtime]
print(json.dumps(words(folder, np.load(speech_path))))
