"""Times transcription against transformers in PyTorch and faster-whisper, side by side in one run.

    python benchmarks/infer.py ~/whisper-base test.jsonl --peers-python PEERS

The work: greedy transcription of a manifest of short utterances, without timestamps, float32 (and
faster-whisper's int8). PEERS is an interpreter with PyTorch, transformers 5, ctranslate2 and
faster-whisper; the model is converted there by CTranslate2's own converter. Each contender is a
process of its own; they take turns, so that other load on the machine falls on all. Loading a model
and compiling are not timed. Reading the audio is timed for this package alone.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

import jiwer
import numpy as np
from side_by_side import BENCHMARKS, FASTWHISPER, Contender, machine, peak_gib, run_rounds, table

from fastwhisper_jax.audio.constants import SAMPLE_RATE_HZ
from fastwhisper_jax.audio.files import load_audio
from fastwhisper_jax.data.manifest import read_manifest
from fastwhisper_jax.evaluation.normalizers import normalizer
from fastwhisper_jax.evaluation.reports import hypotheses_path

MAX_NEW_TOKENS = 224


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder with Whisper in Hugging Face layout")
    parser.add_argument("manifest", help="JSONL; audio at 16 kHz")
    parser.add_argument("--peers-python", required=True)
    parser.add_argument("--limit", type=int, default=1000, help="utterances")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    return parser.parse_args()


def convert(python: str, model: str, folder: Path) -> str:
    """Converts a model to CTranslate2's layout, float32: int8 is made of it on loading."""
    target = str(folder / "ctranslate2")
    copied = ["tokenizer.json", "preprocessor_config.json"]
    command = [str(Path(python).parent / "ct2-transformers-converter"), "--model", model]
    command += ["--output_dir", target, "--copy_files", *copied]
    subprocess.run(command, check=True, capture_output=True)
    return target


def main() -> None:
    options = parse()
    model = str(Path(options.model).expanduser())
    utterances = list(read_manifest(options.manifest))[: options.limit]
    language = utterances[0].language or "en"
    waveforms = [load_audio(u.audio, u.offset, u.duration) for u in utterances]
    audio_seconds = sum(map(len, waveforms)) / SAMPLE_RATE_HZ
    with tempfile.TemporaryDirectory() as folder:
        audio, report = Path(folder) / "audio.npz", Path(folder) / "report.json"
        np.savez(
            audio,
            utterances=len(waveforms),
            language=language,
            task="transcribe",
            max_new_tokens=MAX_NEW_TOKENS,
            beam=1,
            batch_size=options.batch_size,
            **{str(index): waveform for index, waveform in enumerate(waveforms)},
        )
        evaluate = [*FASTWHISPER, "evaluate", model, "--data", options.manifest]
        evaluate += ["--report", report, "--max-new-tokens", MAX_NEW_TOKENS]
        evaluate += ["--batch-size", options.batch_size, "--limit", options.limit]
        contenders = [Contender("ours", evaluate, report)]
        converted = convert(options.peers_python, model, Path(folder))
        for name, runtime, its_model in (
            ("PyTorch", "transformers", model),
            ("faster-whisper", "faster_whisper_float32", converted),
            ("faster-whisper int8", "faster_whisper_int8", converted),
        ):
            peer = [options.peers_python, BENCHMARKS / "peer_transcribe.py", runtime]
            contenders.append(Contender(name, [*peer, its_model, audio]))
        reports = run_rounds(contenders, options.rounds, seconds="wall_seconds")
        lines = hypotheses_path(report).read_text().splitlines()
    reports["ours"]["texts"] = [json.loads(line)["hypothesis"] for line in lines]
    normalize = normalizer("english" if language == "en" else "basic")
    references = [normalize(utterance.text or "") for utterance in utterances]
    scored = [index for index, reference in enumerate(references) if reference]
    speeds = {n: audio_seconds / statistics.median(r["seconds"]) for n, r in reports.items()}
    rows = []
    for name, result in reports.items():
        texts = [normalize(text) for text in result["texts"]]
        wer = jiwer.wer([references[i] for i in scored], [texts[i] for i in scored])
        low, high = (audio_seconds / f(result["seconds"]) for f in (max, min))
        speed = f"{speeds[name]:.2f} ({low:.2f} to {high:.2f})"
        ratio = f"{speeds['ours'] / speeds[name]:.2f}"
        rows.append([name, speed, ratio, f"{wer:.2%}", peak_gib(result)])
    print(f"\n{model} on {len(utterances)} utterances of {options.manifest}, {machine()}\n")
    print(table(["", "x real time", "ours is faster by", "WER", "peak GiB"], rows))


if __name__ == "__main__":
    main()
