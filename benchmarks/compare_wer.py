"""Prints the WER of several models on one data set, with 95 % intervals and paired differences.

    fastwhisper evaluate MODEL --data test.jsonl --report NAME.json        # for each model
    python benchmarks/compare_wer.py A.json B.json ... [--normalizer english]

The intervals come from a bootstrap over utterances (10,000 resamples, seed 0). Each resample is the
same for all models. If the interval of a difference holds 0, this data does not show a difference.
The intervals do not say what training with another seed would give.
"""

import argparse
import json
from pathlib import Path

import jiwer
import numpy as np

from fastwhisper_jax.evaluation.normalizers import NORMALIZERS, normalizer
from fastwhisper_jax.evaluation.reports import hypotheses_path

RESAMPLES = 10_000


def errors_and_words(report: Path, name: str) -> np.ndarray:
    """(utterances, 2): the errors and the reference words of each utterance of a report."""
    normalize = normalizer(name)
    counts = []
    for line in hypotheses_path(report).read_text().splitlines():
        row = json.loads(line)
        reference, hypothesis = normalize(row["reference"]), normalize(row["hypothesis"])
        if not reference:
            counts.append((len(hypothesis.split()), 0))
            continue
        words = jiwer.process_words(reference, hypothesis)
        errors = words.substitutions + words.deletions + words.insertions
        counts.append((errors, len(reference.split())))
    return np.array(counts)


def interval(values: np.ndarray) -> str:
    """The interval that holds the middle 95 % of resampled percentages."""
    low, high = np.percentile(values, [2.5, 97.5])
    return f"{low:6.2f} to {high:6.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("reports", type=Path, nargs="+", metavar="REPORT.json")
    parser.add_argument("--normalizer", choices=NORMALIZERS, default="english")
    options = parser.parse_args()
    counts = {path.stem: errors_and_words(path, options.normalizer) for path in options.reports}
    sizes = {len(rows) for rows in counts.values()}
    if len(sizes) != 1:
        parser.error(
            f"the reports are of different data, {sorted(sizes)} utterances; evaluate the same data"
        )
    (size,) = sizes
    draws = np.random.default_rng(0).integers(0, size, (RESAMPLES, size))
    rates = {}
    print(f"{'model':24}  WER %   95 % interval")
    for name, rows in counts.items():
        resampled = rows[draws].sum(axis=1)
        rates[name] = 100 * resampled[:, 0] / resampled[:, 1]
        errors, words = rows.sum(axis=0)
        print(f"{name:24} {100 * errors / words:6.2f}   {interval(rates[name])}")
    first, *others = rates
    for name in others:
        print(f"{name} - {first}:  95 % interval {interval(rates[name] - rates[first])}")


if __name__ == "__main__":
    main()
