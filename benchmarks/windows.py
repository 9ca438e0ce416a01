"""Times short windows by the length of speech: each utterance alone, and in batches of 8.

    python benchmarks/windows.py my-student --teacher ~/whisper-base --data test.jsonl \\
        --peers-python PEERS/bin/python

Contenders: the teacher at its 30 s, each STUDENT in its windows and at 30 s, and the teacher and
the first student in transformers, faster-whisper (float32, int8) and whisper.cpp (with 30 s, and
with as many positions as the speech needs). PEERS is a virtual environment as docs/exports.md
describes it; without it only this package is timed. All hear the same waveforms, greedily and
without timestamps. The contenders take turns, so that other load on the machine falls on all. Audio
is read, and models are loaded and compiled, before the clock starts.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from side_by_side import BENCHMARKS, Contender, machine, run_rounds, table

from fastwhisper_jax.audio.constants import SAMPLE_RATE_HZ
from fastwhisper_jax.audio.files import load_audio
from fastwhisper_jax.data.manifest import read_manifest
from fastwhisper_jax.evaluation.error_rates import error_rates
from fastwhisper_jax.evaluation.normalizers import normalizer
from fastwhisper_jax.export.hf_configs import read_model_config
from fastwhisper_jax.export.usage import usages

# Speech of at most so many seconds.
LENGTHS = (2.0, 4.0, 8.0, 30.0)
PEERS = {
    "transformers": ("transformers", "transformers (PyTorch)", "{name}"),
    "faster-whisper float32": (
        "faster_whisper_float32",
        "faster-whisper, float32",
        "{name}-ct2",
    ),
    "faster-whisper int8": (
        "faster_whisper_int8",
        "faster-whisper, int8",
        "{name}-ct2-int8",
    ),
    "whisper.cpp": ("whisper_cpp", "whisper.cpp", "{name}-ggml/ggml-model.bin"),
    "whisper.cpp -ac": ("whisper_cpp_short", "whisper.cpp", "{name}-ggml/ggml-model.bin"),
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("students", nargs="+", type=Path, metavar="STUDENT")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--data", required=True, metavar="MANIFEST")
    parser.add_argument("--peers-python", type=Path, metavar="PYTHON")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=[*PEERS])
    parser.add_argument("--limit", type=int, default=1000, help="utterances")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--normalizer", default="english")
    return parser.parse_args()


def peers(
    rows: Sequence[str], model: Path, name: str, python: Path, folder: Path, audio: Path
) -> list[Contender]:
    """Converts a model by the commands of its card; one contender for each row of PEERS."""
    (folder / name).symlink_to(model.resolve())
    dims = read_model_config(model)[1]
    converters = {usage.runtime: usage.convert for usage in usages(name, dims, "en", "float32")}
    contenders = []
    for row in rows:
        runtime, usage, file = PEERS[row]
        target = folder / file.format(name=name)
        if not target.exists():
            path = f'export PATH="{python.parent.absolute()}:$PATH"; {converters[usage]}'
            subprocess.run(["bash", "-ec", path], cwd=folder, check=True, capture_output=True)
        command = [python.absolute(), BENCHMARKS / "peer_transcribe.py", runtime, target, audio]
        contenders.append(Contender(f"{name}, {row}", command))
    return contenders


def ours(model: Path, name: str, audio: Path, window: float | None = None) -> Contender:
    """This package; with a window, everything is heard in it."""
    command = [sys.executable, BENCHMARKS / "ours_transcribe.py", model, audio]
    return Contender(name, [*command, *(["--window", window] if window else [])])


def write_inputs(path: Path, waveforms: list[np.ndarray], batch_size: int) -> Path:
    """Writes the input of every contender."""
    numbered: dict[str, Any] = {str(index): waveform for index, waveform in enumerate(waveforms)}
    settings = {"language": "en", "task": "transcribe", "max_new_tokens": 224, "beam": 1}
    np.savez(path, utterances=len(waveforms), batch_size=batch_size, **settings, **numbered)
    return path


def by_length(each: Sequence[float], lengths: Sequence[float]) -> list[str]:
    """Median and 95th percentile in ms of the utterances of each class of LENGTHS."""
    cells, shortest = [], 0.0
    for longest in LENGTHS:
        chosen = [x for x, own in zip(each, lengths, strict=True) if shortest < own <= longest]
        shortest = longest
        middle, late = np.percentile(chosen, [50, 95]) * 1e3 if chosen else (np.nan, np.nan)
        cells.append(f"{middle:.0f} ({late:.0f})")
    return cells


def main() -> None:
    options = parse()
    utterances = list(read_manifest(options.data))[: options.limit]
    waveforms = [load_audio(u.audio, u.offset, u.duration) for u in utterances]
    lengths = [len(waveform) / SAMPLE_RATE_HZ for waveform in waveforms]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        alone = write_inputs(folder / "alone.npz", waveforms, 1)
        batched = write_inputs(folder / "batched.npz", waveforms, 8)
        contenders = [ours(options.teacher, "teacher, 30 s", alone)]
        contenders += [ours(options.teacher, "teacher, 30 s, batches", batched)]
        for student in options.students:
            name = student.name
            contenders += [ours(student, name, alone), ours(student, f"{name}, batches", batched)]
            contenders += [ours(student, f"{name}, 30 s", alone, 30.0)]
        if options.peers_python:
            python = options.peers_python
            for name, model in (("teacher", options.teacher), ("student", options.students[0])):
                contenders += peers(options.peers, model, name, python, folder, alone)
        reports = run_rounds(contenders, options.rounds)
    references = [utterance.text or "" for utterance in utterances]
    slowest = statistics.median(reports["teacher, 30 s"]["seconds"])
    rows = []
    for name, report in reports.items():
        total = statistics.median(report["seconds"])
        wer = error_rates(references, report["texts"], normalizer(options.normalizer)).wer
        speeds = [f"{sum(lengths) / total:.2f}", f"{slowest / total:.2f}"]
        rows.append([name, f"{wer:.2%}", *speeds, *by_length(report["each"], lengths)])
    print(f"\n{len(utterances)} utterances, {sum(lengths):.0f} s of {options.data}, {machine()}\n")
    classes = [f"to {longest:g} s, ms" for longest in LENGTHS]
    print(table(["", "WER", "x real time", "x the teacher alone", *classes], rows))


if __name__ == "__main__":
    main()
