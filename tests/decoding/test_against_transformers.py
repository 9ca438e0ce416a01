"""Transcripts against PyTorch, which lives in an interpreter of its own."""

import json
import os
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastwhisper_jax.audio.files import load_audio, pad_or_trim
from fastwhisper_jax.data.manifest import read_manifest
from fastwhisper_jax.decoding.rules import decoding_rules
from fastwhisper_jax.evaluation.corpus_batches import detokenizer, make_transcribe
from fastwhisper_jax.evaluation.evaluate import EvaluationBatch, Scoring, evaluate
from fastwhisper_jax.export.hf_load import load_model
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.whisper.tokens import load_tokenizer, prompt_tokens

BATCH_SIZE = 4

CASES = [  # model, language, utterances, beams
    ("whisper-base", "en", 4, 1),
    ("whisper-base", "es", 4, 1),
    ("whisper-tiny.en", "en", 4, 1),
    ("whisper-base", "en", 2, 5),
    ("whisper-tiny.en", "en", 2, 5),
]

# Reads a list of cases, writes the texts of each.
TRANSFORMERS = """
import json, sys
import soundfile, torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

for folder, language, batch_size, beams, paths in json.load(sys.stdin):
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = WhisperProcessor.from_pretrained(folder)
    task = {}
    if model.generation_config.is_multilingual:
        task = {"language": language, "task": "transcribe"}
    audio = [soundfile.read(path, dtype="float32")[0] for path in paths]
    texts = []
    for start in range(0, len(audio), batch_size):
        rows = audio[start : start + batch_size]
        inputs = processor(rows, sampling_rate=16000, return_tensors="pt").input_features
        with torch.inference_mode():
            tokens = model.generate(inputs, max_new_tokens=224, num_beams=beams, **task)
        texts += processor.batch_decode(tokens, skip_special_tokens=True)
    print(json.dumps([text.strip() for text in texts]))
"""


@pytest.fixture(scope="module")
def theirs(real_teacher, real_data):
    """What PyTorch makes of each case, in one process."""
    python = os.environ.get("FASTWHISPER_TORCH_PYTHON")
    if not python:
        pytest.skip(
            "FASTWHISPER_TORCH_PYTHON is not set: "
            "it names a Python that has torch, transformers and soundfile"
        )
    work = [
        (
            str(real_teacher.parent / name),
            language,
            BATCH_SIZE,
            beams,
            [row.audio for row in utterances_of(real_data, language, count)],
        )
        for name, language, count, beams in CASES
    ]
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS")}
    done = subprocess.run(
        [python, "-c", TRANSFORMERS],
        input=json.dumps(work),
        env=clean,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(CASES, map(json.loads, done.stdout.splitlines()), strict=True))


def utterances_of(real_data, language, count):
    return read_manifest(real_data / f"asterisk-{language}" / "test.jsonl")[:count]


def our_transcripts(folder, language, utterances, beams):
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    dims = model.dims
    prompt = np.array(prompt_tokens(tokenizer, language, "transcribe"), np.int32)

    def batches():
        for start in range(0, len(utterances), BATCH_SIZE):
            rows = utterances[start : start + BATCH_SIZE]
            audio = [pad_or_trim(load_audio(row.audio), dims.n_samples) for row in rows]
            yield EvaluationBatch(
                {"audio": np.stack(audio)},
                np.repeat(prompt[None], len(rows), axis=0),
                range(start, start + len(rows)),
                [row.id for row in rows],
                [row.text for row in rows],
                [row.duration for row in rows],
            )

    rules = decoding_rules(model.generation_config)
    report, hypotheses = evaluate(
        make_transcribe(dims, ModelOptions(), rules, max_new_tokens=224, beams=beams),
        jax.tree.map(jnp.asarray, model.params),
        batches(),
        Scoring(detokenizer(tokenizer), rules.end_of_text, "basic"),
    )
    return report, [row.hypothesis for row in hypotheses]


@pytest.mark.real
@pytest.mark.parametrize("case", CASES, ids=str)
def test_transcripts_equal_those_of_transformers(real_teacher, real_data, theirs, case):
    name, language, count, beams = case
    utterances = utterances_of(real_data, language, count)
    report, ours = our_transcripts(real_teacher.parent / name, language, utterances, beams)
    assert ours == theirs[case]
    assert report.wer < 0.6
