"""Times the train step against PyTorch and against transformers' Flax, side by side in one run.

    python benchmarks/step.py ~/whisper-base --torch-python TORCH --flax-python FLAX

The work: CE + KL distillation of MODEL into its encoder and two decoder layers, float32, AdamW,
clipped gradients, batch 8 x 64 target tokens, token embedding trained. `frozen` runs the encoder
once a step for teacher and student; `full` trains it, so it is run twice; `cached` is what this
package does from the second epoch on when `data.encoder_cache` is set (reading from disk included).
TORCH has PyTorch and transformers 5; FLAX has transformers 4.57, jax and flax. Each contender is a
process of its own; they take turns, so that other load on the machine falls on all. transformers'
Flax needs 20 GB for `full`.
"""

import argparse
import statistics
import sys

from contenders.processes import Contender, machine, run_rounds, table

MODES = {"ours": ("frozen", "full", "cached"), "PyTorch": ("frozen", "full")}
MODES["HF Flax"] = MODES["PyTorch"]
SCRIPTS = {"ours": "ours_step.py", "PyTorch": "torch_step.py", "HF Flax": "flax_step.py"}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder with Whisper in Hugging Face layout")
    parser.add_argument("--torch-python", help="interpreter with PyTorch; left out without one")
    parser.add_argument("--flax-python", help="interpreter with HF Flax; left out without one")
    parser.add_argument("--modes", nargs="+", default=["frozen", "full", "cached"])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4, help="timed steps a round")
    parser.add_argument("--rounds", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    options = parse()
    pythons = {
        "ours": sys.executable,
        "PyTorch": options.torch_python,
        "HF Flax": options.flax_python,
    }
    sizes = tuple(map(str, (options.batch_size, options.tokens, options.steps)))
    contenders = [
        Contender(f"{name} {mode}", python, SCRIPTS[name], (options.model, mode, *sizes))
        for mode in options.modes
        for name, python in pythons.items()
        if python and mode in MODES[name]
    ]
    reports = run_rounds(contenders, options.rounds)
    median = {
        c.name: statistics.median(r["seconds"]) for c, r in zip(contenders, reports, strict=True)
    }
    rows = []
    for contender, report in zip(contenders, reports, strict=True):
        name, mode = contender.name.rsplit(" ", 1)
        against = "frozen" if mode == "cached" else mode
        ratios = [
            f"{median[f'{peer} {against}'] / median[contender.name]:.2f}"
            if f"{peer} {against}" in median
            else "-"
            for peer in ("PyTorch", "HF Flax")
        ]
        low, high = min(report["seconds"]), max(report["seconds"])
        seconds = f"{median[contender.name]:.2f} ({low:.2f} to {high:.2f})"
        peak = f"{report['peak_bytes'] / 2**30:.1f}"
        rows.append([contender.name, seconds, *ratios, f"{report['first_seconds']:.0f}", peak])
    print(f"\n{options.model}, batch {options.batch_size} x {options.tokens} tokens, {machine()}\n")
    header = ["", "seconds a step", "x PyTorch", "x HF Flax", "first step, s", "peak GiB"]
    print(table(header, rows))


if __name__ == "__main__":
    main()
