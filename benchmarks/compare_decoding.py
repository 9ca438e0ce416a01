"""Texts of this package against those of transformers, same weights, greedy and beam search.

    python benchmarks/compare_decoding.py MODEL --data test.jsonl --torch-python PYTHON [--beam 1 5]

MODEL is a Hugging Face folder; PYTHON is an interpreter with PyTorch and transformers 5. Both
decode the utterances of a manifest in batches of 8, float32, at most 224 tokens, in the language of
the first one. Printed are how many texts are identical, those that are not, and the word error rate
of one against the other and of each against the references.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from fastwhisper_jax.arguments import EvaluateArguments
from fastwhisper_jax.audio.files import load_audio
from fastwhisper_jax.commands import evaluate
from fastwhisper_jax.data.manifest import read_manifest
from fastwhisper_jax.evaluation.error_rates import error_rates
from fastwhisper_jax.evaluation.normalizers import normalizer
from fastwhisper_jax.evaluation.reports import hypotheses_path

TRANSFORMERS = """
import json, sys
import numpy as np, torch
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer

folder, clips, language, beams, out = sys.argv[1:]
model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
extractor = WhisperFeatureExtractor.from_pretrained(folder)
tokenizer = WhisperTokenizer.from_pretrained(folder)
prompt = {}
if model.generation_config.is_multilingual:
    prompt = {"language": language, "task": "transcribe"}
audio = list(np.load(clips).values())
texts = []
for start in range(0, len(audio), 8):
    features = extractor(audio[start : start + 8], sampling_rate=16000, return_tensors="pt")
    with torch.inference_mode():
        tokens = model.generate(
            features.input_features, max_new_tokens=224, num_beams=int(beams), **prompt
        )
    texts += tokenizer.batch_decode(tokens, skip_special_tokens=True)
json.dump([text.strip() for text in texts], open(out, "w"))
"""


def transformers_says(
    python: Path, model: Path, clips: dict[str, np.ndarray], language: str, beams: int, folder: Path
) -> list[str]:
    """Texts of transformers, in another interpreter."""
    np.savez(folder / "clips.npz", **clips)
    out = folder / "theirs.json"
    arguments = [str(model), str(folder / "clips.npz"), language, str(beams), str(out)]
    subprocess.run([python, "-c", TRANSFORMERS, *arguments], check=True)
    texts: list[str] = json.loads(out.read_text())
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True, metavar="MANIFEST")
    parser.add_argument("--torch-python", type=Path, required=True, metavar="PYTHON")
    parser.add_argument("--beam", type=int, nargs="+", default=[1, 5], metavar="N")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N utterances")
    given = parser.parse_args()
    utterances = {utterance.id: utterance for utterance in read_manifest(given.data)}
    language = next(iter(utterances.values())).language or "en"
    normalize = normalizer("english" if language == "en" else "basic")
    for beams in given.beam:
        with tempfile.TemporaryDirectory() as name:
            report = Path(name) / "ours.json"
            evaluate.run(
                EvaluateArguments(
                    str(given.model),
                    data=str(given.data),
                    report=report,
                    limit=given.limit,
                    beam=beams,
                )
            )
            rows = [json.loads(line) for line in hypotheses_path(report).read_text().splitlines()]
            chosen = [utterances[row["id"]] for row in rows]
            clips = {u.id: load_audio(u.audio, u.offset, u.duration) for u in chosen}
            numbered = dict(zip(map(str, range(len(clips))), clips.values(), strict=True))
            theirs = transformers_says(
                given.torch_python, given.model, numbered, language, beams, Path(name)
            )
        ours = [row["hypothesis"].strip() for row in rows]
        references = [row["reference"] for row in rows]
        same = [mine == other for mine, other in zip(ours, theirs, strict=True)]
        for mine, other in zip(ours, theirs, strict=True):
            if mine != other:
                print(f"  transformers: {other}\n  ours:         {mine}")
        print(f"beam {beams}: {sum(same)} of {len(same)} texts identical")
        for title, left, right in (
            ("ours against transformers", theirs, ours),
            ("transformers", references, theirs),
            ("ours", references, ours),
        ):
            print(f"  WER of {title}: {100 * error_rates(left, right, normalize).wer:.2f} %")


if __name__ == "__main__":
    main()
