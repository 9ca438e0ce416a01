"""Transcribes waveforms with this package, each in the shortest window of the model that holds it.

    python benchmarks/ours_transcribe.py MODEL IN.npz [--window SECONDS]

IN.npz and the printed line are those of `peer_transcribe.py`. A batch holds utterances of one
window. Every window is compiled before the clock starts.
"""

import argparse
import json
import time

import numpy as np
from peer_transcribe import read_inputs

from fastwhisper_jax.audio.constants import SAMPLE_RATE_HZ
from fastwhisper_jax.audio.windows import window_samples
from fastwhisper_jax.decoding.prefill import decoding_params
from fastwhisper_jax.decoding.rules import decoding_rules
from fastwhisper_jax.distillation.model_options import model_options
from fastwhisper_jax.distillation.pair import place_params
from fastwhisper_jax.evaluation.corpus_batches import detokenizer, make_transcribe
from fastwhisper_jax.export.hf_load import load_model, resolve_model
from fastwhisper_jax.models.whisper.tokens import load_tokenizer, prompt_tokens
from fastwhisper_jax.training.sharding import make_mesh


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("inputs")
    parser.add_argument("--window", type=float)
    options = parser.parse_args()
    waveforms, settings = read_inputs(options.inputs)
    size = settings["batch_size"]
    mesh = make_mesh(1, 1)
    model = load_model(resolve_model(options.model))
    windows = model.windows.only(options.window, "--window") if options.window else model.windows
    tokenizer = load_tokenizer(model.folder)
    rules = decoding_rules(model.generation_config)
    how = model_options(mesh, "float32")
    params = decoding_params(place_params(model.params, "float32", mesh), model.dims, how)
    transcribe = make_transcribe(model.dims, how, rules, settings["max_new_tokens"])
    decode = detokenizer(tokenizer)
    prompt = prompt_tokens(tokenizer, settings["language"], settings["task"])
    prompts = np.tile(np.array(prompt, np.int32), (size, 1))

    def texts_of(rows: list[np.ndarray], samples: int) -> list[str]:
        audio = np.zeros((size, samples), np.float32)
        for row, waveform in zip(audio, rows, strict=False):
            row[: len(waveform)] = waveform[:samples]
        mask = np.arange(size) < len(rows)
        tokens = np.asarray(transcribe(params, {"audio": audio}, prompts, mask))[: len(rows)]
        return [decode(row[row != rules.end_of_text]).strip() for row in tokens]

    samples_of = [
        window_samples(windows.shortest_for(len(waveform) / SAMPLE_RATE_HZ))
        for waveform in waveforms
    ]
    for samples in set(samples_of):
        texts_of([waveforms[0]], samples)
    order = sorted(range(len(waveforms)), key=lambda i: (samples_of[i], len(waveforms[i])))
    texts, seconds = [""] * len(waveforms), [0.0] * len(waveforms)
    while order:
        samples = samples_of[order[0]]
        batch = [index for index in order[:size] if samples_of[index] == samples]
        order = order[len(batch) :]
        start = time.perf_counter()
        found = texts_of([waveforms[index] for index in batch], samples)
        for index, text in zip(batch, found, strict=True):
            texts[index] = text
            seconds[index] = (time.perf_counter() - start) / len(batch)
    print(json.dumps({"texts": texts, "each": seconds, "seconds": [sum(seconds)]}))


if __name__ == "__main__":
    main()
