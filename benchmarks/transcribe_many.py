"""Transcribes many recordings in one call, and checks their order, the errors and the memory.

    python benchmarks/transcribe_many.py MODEL --data test.jsonl [--files 100]

The utterances of a manifest, with silences between them, are joined into recordings of 1 to 120 s.
Most recordings are a few seconds long; every tenth is a minute or two. One file in the middle holds
no audio. One `fastwhisper transcribe` is given all of them. This prints its exit code, its error
messages, whether each file has its transcript in the order given, and the memory of the process
after 10, 50 and 100 % of the files.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from fastwhisper_jax.audio.constants import SAMPLE_RATE_HZ
from fastwhisper_jax.audio.files import load_audio
from fastwhisper_jax.data.manifest import read_manifest


def write_recordings(folder: Path, manifest: Path, count: int) -> tuple[list[Path], int, float]:
    """The files, the index of the one without audio, and the seconds of the others."""
    generator = np.random.default_rng(0)
    clips = [load_audio(utterance.audio) for utterance in read_manifest(manifest)]
    paths, clip, total = [], 0, 0.0
    for index in range(count):
        longest = 120.0 if index % 20 == 10 else 60.0 if index % 20 == 0 else 1 + 7 * index / count
        parts: list[np.ndarray] = []
        while sum(map(len, parts)) < longest * SAMPLE_RATE_HZ:
            gap = generator.uniform(0.3, 2.0) * SAMPLE_RATE_HZ
            parts += [clips[clip % len(clips)], np.zeros(round(gap), np.float32)]
            clip += 1
        audio = np.concatenate(parts)[: round(longest * SAMPLE_RATE_HZ)]
        paths.append(folder / f"{index:03d}.flac")
        soundfile.write(paths[-1], audio, SAMPLE_RATE_HZ)
        total += len(audio) / SAMPLE_RATE_HZ
    broken = count // 2
    total -= soundfile.info(paths[broken]).duration
    paths[broken].write_bytes(b"no audio")
    return paths, broken, total


def resident_mib(process: int) -> float:
    """The memory of a process that is in RAM (Linux)."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True, metavar="MANIFEST")
    parser.add_argument("--files", type=int, default=100, metavar="N")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        paths, broken, seconds = write_recordings(Path(name), given.data, given.files)
        print(f"{len(paths)} files, {seconds / 60:.1f} minutes; no audio: {paths[broken].name}")
        command = [sys.executable, "-c", "from fastwhisper_jax.cli import main; exit(main())"]
        command += ["transcribe", given.model, *map(str, paths), "--format", "json"]
        start = time.perf_counter()
        with (
            open(Path(name) / "errors", "w+") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        ):
            assert process.stdout is not None
            transcribed, memory = [], []
            for line in process.stdout:
                transcribed.append(json.loads(line)["file"])
                memory.append(resident_mib(process.pid))
            code = process.wait()
            errors.seek(0)
            messages = [line for line in errors if line.startswith("error")]
        wall = time.perf_counter() - start
    expected = [str(path) for index, path in enumerate(paths) if index != broken]
    print(f"exit code {code}; in order and complete: {transcribed == expected}")
    print(f"{wall:.0f} s with loading and compiling, {seconds / wall:.1f} x real time")
    print(*messages, sep="")
    for share in (0.1, 0.5, 1.0):
        last = max(0, round(share * len(memory)) - 1)
        print(f"memory at {100 * share:.0f} % of the files: {memory[last]:.0f} MiB")


if __name__ == "__main__":
    main()
