"""Transcribes with an export in several runtimes: how many texts equal ours, and the WER of each.

    python benchmarks/compare_runtimes.py my-student --data test.jsonl --limit 20 \\
        --runtimes-python RUNTIMES/bin/python --flax-python FLAX/bin/python

RUNTIMES is a virtual environment with torch, transformers, soundfile, faster-whisper and
pywhispercpp; FLAX one with transformers 4.57 and Flax (docs/exports.md has their pip commands);
either may be left out. All
decode the same waveforms in float32 (or as the row says), without timestamps and without fallback
to other temperatures. Models are converted with the commands of the model card. `--beam N` searches
with a beam instead of greedily, by transformers' PyTorch alone: MODEL may then be any Hugging Face
folder. 20 utterances of whisper-base with two decoder layers take minutes of CPU time, most of
them for the conversions; docs/exports.md has the table.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from fastwhisper_jax.arguments import EvaluateArguments
from fastwhisper_jax.audio.constants import SAMPLE_RATE_HZ
from fastwhisper_jax.audio.files import load_audio
from fastwhisper_jax.commands import evaluate
from fastwhisper_jax.data.manifest import read_manifest
from fastwhisper_jax.evaluation.error_rates import error_rates
from fastwhisper_jax.evaluation.normalizers import NORMALIZERS, normalizer
from fastwhisper_jax.evaluation.reports import hypotheses_path
from fastwhisper_jax.export.hf_configs import read_model_config
from fastwhisper_jax.export.usage import usages

PEER = Path(__file__).with_name("peer_transcribe.py")
STUDENT = "student"  # the name of the export in the working folder
BATCH_SIZE = 4
SILENCE, AS_IT_IS = "silence.npz", "as_it_is.npz"
CT2_FLOAT32 = ("faster-whisper, float32", "faster_whisper_float32", f"{STUDENT}-ct2")
CT2_INT8 = ("faster-whisper, int8", "faster_whisper_int8", f"{STUDENT}-ct2-int8")
# For each row of the table: the runtime of the model card, the runtime of PEER, its model, and its
# audio. The card gives faster-whisper audio filled up to 30 s with silence; the last two rows show
# what it hears otherwise.
ROWS = {
    "transformers": ("transformers (PyTorch)", "transformers", STUDENT, AS_IT_IS),
    "FlaxWhisper": ("FlaxWhisper (transformers 4.57)", "flax_whisper", STUDENT, AS_IT_IS),
    "whisper.cpp": ("whisper.cpp", "whisper_cpp", f"{STUDENT}-ggml/ggml-model.bin", AS_IT_IS),
    "faster-whisper float32": (*CT2_FLOAT32, SILENCE),
    "faster-whisper int8": (*CT2_INT8, SILENCE),
    "faster-whisper float32, audio as it is": (*CT2_FLOAT32, AS_IT_IS),
    "faster-whisper int8, audio as it is": (*CT2_INT8, AS_IT_IS),
}


def our_texts(options: argparse.Namespace, folder: Path) -> list[dict[str, str]]:
    """Rows of `fastwhisper evaluate`: id, reference, hypothesis."""
    report = folder / "ours.json"
    evaluate.run(
        EvaluateArguments(
            str(options.export),
            data=str(options.data),
            report=report,
            limit=options.limit,
            beam=options.beam,
            max_new_tokens=options.max_new_tokens,
            language=options.language,
            task=options.task,
        )
    )
    return [json.loads(line) for line in hypotheses_path(report).read_text().splitlines()]


def write_waveforms(path: Path, waveforms: list[np.ndarray], options: argparse.Namespace) -> None:
    """Writes the input of PEER."""
    names = ("language", "task", "max_new_tokens", "beam")
    settings = {name: getattr(options, name) for name in names} | {"batch_size": BATCH_SIZE}
    numbered = {str(index): waveform for index, waveform in enumerate(waveforms)}
    np.savez(path, utterances=len(waveforms), **settings, **numbered)


def run(command: list[object], python: Path, folder: Path) -> str:
    """Runs a command with an environment's programs first on PATH; returns what it prints."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            "HF_HUB_OFFLINE": "1",
        },
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{command[:3]} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("export", type=Path, metavar="EXPORT")
    parser.add_argument("--data", type=Path, required=True, metavar="MANIFEST")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N utterances")
    parser.add_argument("--runtimes-python", type=Path, metavar="PYTHON")
    parser.add_argument("--flax-python", type=Path, metavar="PYTHON")
    parser.add_argument("--language", default="en")
    parser.add_argument("--task", default="transcribe")
    parser.add_argument("--max-new-tokens", type=int, default=224, metavar="N")
    parser.add_argument("--beam", type=int, default=1, metavar="N", help="1 is greedy decoding")
    parser.add_argument("--normalizer", choices=NORMALIZERS, default="english")
    options = parser.parse_args()
    config, dims = read_model_config(options.export)
    offered = usages(STUDENT, dims, options.language, config.get("torch_dtype", "float32"))
    converters = {usage.runtime: usage.convert for usage in offered}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / STUDENT).symlink_to(options.export.resolve())
        ours = our_texts(options, folder)
        by_id = {utterance.id: utterance for utterance in read_manifest(options.data)}
        chosen = [by_id[row["id"]] for row in ours]
        waveforms = [load_audio(u.audio, u.offset, u.duration) for u in chosen]
        write_waveforms(folder / AS_IT_IS, waveforms, options)
        missing = [max(0, 30 * SAMPLE_RATE_HZ - len(waveform)) for waveform in waveforms]
        silent = [np.pad(w, (0, n)) for w, n in zip(waveforms, missing, strict=True)]
        write_waveforms(folder / SILENCE, silent, options)
        print("| runtime | texts equal to ours | WER % |\n|---|---:|---:|")
        differing = compare("ours", [row["hypothesis"] for row in ours], ours, options.normalizer)
        for row, (runtime, peer, model, audio) in ROWS.items():
            python = options.flax_python if peer == "flax_whisper" else options.runtimes_python
            if python is None or runtime not in converters:
                continue
            if options.beam > 1 and peer != "transformers":
                continue
            python = Path(os.path.abspath(python))  # not resolved: a link marks the environment
            if converters[runtime] and not (folder / model).exists():
                run(["bash", "-ec", converters[runtime]], python, folder)
            printed = run([python, PEER.resolve(), peer, model, audio], python, folder)
            theirs = json.loads(printed.splitlines()[-1])["texts"]
            differing += compare(row, theirs, ours, options.normalizer)
    print(*["", *differing], sep="\n")


def compare(row: str, theirs: list[str], ours: list[dict[str, str]], name: str) -> list[str]:
    """Prints a row of the table; returns a line for each text that differs from ours."""
    wer = error_rates([text["reference"] for text in ours], theirs, normalizer(name)).wer
    pairs = [(a["hypothesis"], b) for a, b in zip(ours, theirs, strict=True)]
    differing = [f"{row}: {b!r}, ours {a!r}" for a, b in pairs if a.strip() != b.strip()]
    equal = len(pairs) - len(differing)
    print(f"| {row} | {equal} of {len(ours)} | {100 * wer:.2f} |", flush=True)
    return differing


if __name__ == "__main__":
    main()
