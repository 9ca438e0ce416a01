"""Times transcription against transformers in PyTorch and faster-whisper, side by side in one run.

    python benchmarks/infer.py ~/whisper-base test.jsonl --peers-python PEERS

The work: greedy transcription of a manifest of short utterances, without timestamps, float32 (and
faster-whisper's int8). PEERS is an interpreter with PyTorch, transformers 5, ctranslate2 and
faster-whisper; the model is converted there by CTranslate2's own converter. Each contender is a
process of its own; they take turns, so that other load on the machine falls on all.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import jiwer
from contenders.processes import Contender, machine, run_rounds, table

from fastwhisper_jax.evaluation.normalizers import normalizer


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
    sizes = (options.manifest, str(options.limit), str(options.batch_size))
    peer = options.peers_python
    rows = [json.loads(line) for line in Path(options.manifest).read_text().splitlines()]
    rows = rows[: options.limit]
    with tempfile.TemporaryDirectory() as folder:
        converted = convert(peer, model, Path(folder))
        script = "infer_peers.py"
        contenders = [
            Contender("ours", sys.executable, "ours_infer.py", (model, *sizes)),
            Contender("PyTorch", peer, script, ("hf", model, *sizes)),
            Contender("faster-whisper", peer, script, ("fw_float32", converted, *sizes)),
            Contender("faster-whisper int8", peer, script, ("fw_int8", converted, *sizes)),
        ]
        reports = run_rounds(contenders, options.rounds)
    normalize = normalizer("english" if rows[0]["language"] == "en" else "basic")
    references = [normalize(row["text"]) for row in rows]
    scored = [index for index, reference in enumerate(references) if reference]
    rtfx = [r["audio_seconds"] / statistics.median(r["seconds"]) for r in reports]
    lines = []
    for contender, report, speed in zip(contenders, reports, rtfx, strict=True):
        texts = [normalize(text) for text in report["texts"]]
        wer = jiwer.wer([references[i] for i in scored], [texts[i] for i in scored])
        low, high = (report["audio_seconds"] / f(report["seconds"]) for f in (max, min))
        peak = f"{report['peak_bytes'] / 2**30:.1f}"
        span = f"{speed:.2f} ({low:.2f} to {high:.2f})"
        lines.append([contender.name, span, f"{rtfx[0] / speed:.2f}", f"{wer:.2%}", peak])
    print(f"\n{model} on {len(rows)} utterances of {options.manifest}, {machine()}\n")
    header = ["", "x real time", "ours is faster by", "WER", "peak GiB"]
    print(table(header, lines))


if __name__ == "__main__":
    main()
