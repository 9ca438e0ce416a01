"""The contenders of infer.py that are not ours: transformers in PyTorch, and faster-whisper.

    run by the benchmark as: infer_peers.py ENGINE MODEL MANIFEST LIMIT BATCH

ENGINE is hf, fw_float32 or fw_int8; MODEL is in CTranslate2's layout for the last two. Greedy, no
timestamps, no temperature fallback; transformers in batches of BATCH, faster-whisper one by one, as
its `transcribe` does. Loading the model is not timed. This package is not imported.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import soundfile

SAMPLE_RATE_HZ = 16_000
MAX_NEW_TOKENS = 224
Transcribe = Callable[[list[Any]], list[str]]


def transformers_engine(model: str, language: str, batch_size: int) -> Transcribe:
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    torch.set_num_threads(os.cpu_count() or 1)
    network = WhisperForConditionalGeneration.from_pretrained(model, dtype=torch.float32).eval()
    processor = WhisperProcessor.from_pretrained(model)

    def transcribe(audio: list[Any]) -> list[str]:
        texts = []
        for start in range(0, len(audio), batch_size):
            chunk = audio[start : start + batch_size]
            features = processor(chunk, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
            with torch.inference_mode():
                tokens = network.generate(
                    features.input_features,
                    language=language,
                    task="transcribe",
                    max_new_tokens=MAX_NEW_TOKENS,
                )
            texts += processor.batch_decode(tokens, skip_special_tokens=True)
        return texts

    return transcribe


def faster_whisper_engine(model: str, language: str, compute_type: str) -> Transcribe:
    from faster_whisper import WhisperModel

    threads = os.cpu_count() or 1
    network = WhisperModel(model, device="cpu", compute_type=compute_type, cpu_threads=threads)

    def transcribe_one(samples: Any) -> str:
        segments, _ = network.transcribe(
            samples,
            language=language,
            beam_size=1,
            temperature=0.0,
            without_timestamps=True,
            condition_on_previous_text=False,
            max_new_tokens=MAX_NEW_TOKENS,
        )
        return "".join(segment.text for segment in segments)

    return lambda audio: [transcribe_one(samples) for samples in audio]


def main(engine: str, model: str, manifest: str, limit: int, batch_size: int) -> None:
    rows = [json.loads(line) for line in Path(manifest).read_text().splitlines()][:limit]
    folder = Path(manifest).parent
    audio = [soundfile.read(folder / row["audio"], dtype="float32")[0] for row in rows]
    language = rows[0]["language"]
    if engine == "hf":
        transcribe = transformers_engine(model, language, batch_size)
    else:
        transcribe = faster_whisper_engine(model, language, engine.removeprefix("fw_"))
    start = time.perf_counter()
    texts = transcribe(audio)
    wall_seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux
    report = {
        "texts": texts,
        "audio_seconds": sum(map(len, audio)) / SAMPLE_RATE_HZ,
        "seconds": [wall_seconds],
        "peak_bytes": peak,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:6]))
