"""How silence and noise around the speech move a model's word error rate.

    python benchmarks/robustness.py my-student --data test.jsonl

Every utterance gets silence or noise before and behind it, and is then transcribed in the window
that the whole needs. Noise is white, 40 dB below the utterance's own power. The table also holds
the longest hypothesis beside its reference, and how many hypotheses exceed 3 x their reference + 20
characters: such a text is a loop.
"""

import argparse
import contextlib
import io
import json
import tempfile
import zlib
from pathlib import Path

import numpy as np
import soundfile
from side_by_side import table

from fastwhisper_jax.arguments import EvaluateArguments
from fastwhisper_jax.audio.constants import SAMPLE_RATE_HZ
from fastwhisper_jax.audio.files import load_audio
from fastwhisper_jax.commands import evaluate
from fastwhisper_jax.data.manifest import Utterance, read_manifest
from fastwhisper_jax.evaluation.reports import hypotheses_path

# Seconds before and behind the speech.
AROUND = ((0.0, 0.0), (0.0, 1.0), (0.0, 4.0), (0.0, 10.0), (0.0, 28.0), (0.5, 0.0), (2.0, 0.0))
NOISE_DECIBELS = -40.0


def surrounded(audio: np.ndarray, before: float, behind: float, is_noisy: bool) -> np.ndarray:
    """The speech (A,) with silence or noise around it, at most 30 s in all."""
    level = float(np.sqrt(np.mean(np.square(audio)))) * 10 ** (NOISE_DECIBELS / 20)
    generator = np.random.default_rng(zlib.crc32(audio.tobytes()))

    def part(seconds: float) -> np.ndarray:
        noise = generator.normal(scale=level, size=round(seconds * SAMPLE_RATE_HZ))
        return (noise if is_noisy else np.zeros_like(noise)).astype(np.float32)

    whole = np.concatenate([part(before), audio, part(behind)])
    return whole[: max(30 * SAMPLE_RATE_HZ, len(audio))]


def write(
    folder: Path, utterances: list[Utterance], before: float, behind: float, is_noisy: bool
) -> Path:
    """Writes a manifest of the surrounded utterances."""
    folder.mkdir()
    lines = []
    for index, utterance in enumerate(utterances):
        audio = load_audio(utterance.audio, utterance.offset, utterance.duration)
        changed = surrounded(audio, before, behind, is_noisy)
        soundfile.write(folder / f"{index}.wav", changed, SAMPLE_RATE_HZ, subtype="FLOAT")
        row = {"audio": f"{index}.wav", "text": utterance.text, "language": utterance.language}
        lines.append(json.dumps(row | {"id": utterance.id}))
    manifest = folder / "manifest.jsonl"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--data", required=True, metavar="MANIFEST")
    parser.add_argument("--limit", type=int, default=1000, help="utterances")
    options = parser.parse_args()
    utterances = list(read_manifest(options.data))[: options.limit]
    rows = []
    for before, behind in AROUND:
        for is_noisy in (False, True) if before or behind else (False,):
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch)
                manifest = write(folder / "audio", utterances, before, behind, is_noisy)
                given = EvaluateArguments(
                    options.model, data=str(manifest), report=folder / "report.json"
                )
                with contextlib.redirect_stderr(io.StringIO()):
                    report = evaluate.run(given)
                lines = hypotheses_path(folder / "report.json").read_text().splitlines()
            texts = [json.loads(line) for line in lines]
            lengths = [(len(text["hypothesis"]), len(text["reference"])) for text in texts]
            longest = max(lengths, key=lambda pair: pair[0] / (pair[1] + 1))
            loops = sum(ours > 3 * theirs + 20 for ours, theirs in lengths)
            kind = "noise" if is_noisy else "silence"
            what = f"{before:g} s before, {behind:g} s behind, {kind}"
            rows.append([what, f"{report.wer:.2%}", f"{longest[0]} of {longest[1]}", f"{loops}"])
            print(rows[-1], flush=True)
    print(f"\n{options.model} on {len(utterances)} utterances of {options.data}\n")
    print(table(["", "WER", "longest hypothesis, characters", "loops"], rows))


if __name__ == "__main__":
    main()
