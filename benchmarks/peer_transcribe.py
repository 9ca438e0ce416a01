"""Transcribes under the interpreter of another runtime; this package is not imported.

    python benchmarks/peer_transcribe.py RUNTIME MODEL IN.npz

IN.npz holds `language`, `task`, `max_new_tokens`, `beam`, `batch_size`, the number of
`utterances`, and 16 kHz waveforms "0", "1", ... All runtimes decode without fallback to other
temperatures, without timestamps and without the text of an earlier utterance. Printed is one JSON
line: the texts in order, the seconds that each took (its share of its batch) and those of all,
without loading the model.

MODEL is a folder in Hugging Face layout; for faster-whisper what ct2-transformers-converter made of
it, for whisper.cpp the file that convert-h5-to-ggml.py made of it.
"""

import functools
import json
import os
import sys
import time

import numpy as np

SAMPLE_RATE_HZ = 16_000
THREADS = os.cpu_count() or 1


def transformers(model, options):
    """PyTorch, float32, in batches."""
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    torch.set_num_threads(THREADS)
    processor = WhisperProcessor.from_pretrained(model)
    whisper = WhisperForConditionalGeneration.from_pretrained(model, dtype=torch.float32).eval()
    spoken = {"language": options["language"], "task": options["task"]}
    if not getattr(whisper.generation_config, "is_multilingual", True):
        spoken = {}

    def transcribe(rows):
        features = processor(rows, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        with torch.inference_mode():
            tokens = whisper.generate(
                features.input_features,
                num_beams=options["beam"],
                do_sample=False,
                max_new_tokens=options["max_new_tokens"],
                **spoken,
            )
        return processor.batch_decode(tokens, skip_special_tokens=True)

    return transcribe, options["batch_size"]


def flax_whisper(model, options):
    """transformers 4.57, float32. Batches are filled up to one size, so that it compiles once."""
    from transformers import (
        FlaxWhisperForConditionalGeneration,
        WhisperProcessor,
    )

    processor = WhisperProcessor.from_pretrained(model)
    whisper = FlaxWhisperForConditionalGeneration.from_pretrained(model)
    spoken = {"language": f"<|{options['language']}|>", "task": options["task"]}
    if not getattr(whisper.generation_config, "is_multilingual", True):
        spoken = {}

    def transcribe(rows):
        silence = [np.zeros(SAMPLE_RATE_HZ, np.float32)] * (options["batch_size"] - len(rows))
        features = processor(rows + silence, sampling_rate=SAMPLE_RATE_HZ, return_tensors="np")
        tokens = whisper.generate(
            features.input_features,
            num_beams=options["beam"],
            do_sample=False,
            max_new_tokens=options["max_new_tokens"],
            **spoken,
        ).sequences
        return processor.batch_decode(tokens[: len(rows)], skip_special_tokens=True)

    return transcribe, options["batch_size"]


def faster_whisper(model, options, *, compute_type):
    """CTranslate2 on the CPU, one utterance at a time."""
    from faster_whisper import WhisperModel

    whisper = WhisperModel(model, device="cpu", compute_type=compute_type, cpu_threads=THREADS)

    def transcribe(rows):
        segments, _ = whisper.transcribe(
            rows[0],
            language=options["language"],
            task=options["task"],
            beam_size=options["beam"],
            temperature=0.0,
            compression_ratio_threshold=None,
            log_prob_threshold=None,
            no_speech_threshold=None,
            condition_on_previous_text=False,
            without_timestamps=True,
            max_new_tokens=options["max_new_tokens"],
        )
        return ["".join(segment.text for segment in segments)]

    return transcribe, 1


def whisper_cpp(model, options, *, is_short=False):
    """pywhispercpp, one utterance at a time, greedily. Its converter stores float16 matrices.

    If `is_short`, an utterance is encoded in as many positions as it and a second of silence need
    (`-ac` of whisper.cpp's own program), else in 30 s.
    """
    from pywhispercpp.model import Model

    whisper = Model(
        model,
        redirect_whispercpp_logs_to=None,
        language=options["language"],
        translate=options["task"] == "translate",
        temperature=0.0,
        temperature_inc=0.0,
        no_context=True,
        no_timestamps=True,
        single_segment=True,
        suppress_nst=True,
        print_progress=False,
        print_realtime=False,
        print_timestamps=False,
        max_tokens=options["max_new_tokens"],
    )

    def transcribe(rows):
        seconds = len(rows[0]) / SAMPLE_RATE_HZ
        positions = min(1500, round(50 * (seconds + 1.0))) if is_short else 0
        segments = whisper.transcribe(rows[0], audio_ctx=positions)
        return ["".join(segment.text for segment in segments)]

    return transcribe, 1


RUNTIMES = {
    "transformers": transformers,
    "flax_whisper": flax_whisper,
    "faster_whisper_float32": functools.partial(faster_whisper, compute_type="float32"),
    "faster_whisper_int8": functools.partial(faster_whisper, compute_type="int8"),
    "whisper_cpp": whisper_cpp,
    "whisper_cpp_short": functools.partial(whisper_cpp, is_short=True),
}


def read_inputs(path):
    """The waveforms of IN.npz, and its settings by name."""
    inputs = np.load(path)
    settings = {name: inputs[name].item() for name in inputs if not name.isdigit()}
    return [inputs[str(index)] for index in range(settings["utterances"])], settings


if __name__ == "__main__":
    runtime, folder, inputs_path = sys.argv[1:]
    audio, settings = read_inputs(inputs_path)
    transcribe, several = RUNTIMES[runtime](folder, settings)
    transcribe(audio[:several])  # the first call makes what later calls use
    texts, each = [], []
    for start in range(0, len(audio), several):
        began = time.perf_counter()
        found = transcribe(audio[start : start + several])
        each += [(time.perf_counter() - began) / len(found)] * len(found)
        texts += found
    print(json.dumps({"texts": texts, "each": each, "seconds": [sum(each)]}))
