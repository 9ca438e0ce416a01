"""Times the train step against PyTorch and against transformers' Flax, side by side in one run.

    python benchmarks/step.py ~/whisper-base --torch-python TORCH --flax-python FLAX

The work: CE + KL distillation of MODEL into its encoder and two decoder layers, float32, AdamW,
clipped gradients, batch 8 x 64 target tokens, token embedding trained. `frozen` runs the encoder
once a step for teacher and student; `full` trains it, so it is run twice; `cached` is what this
package does from the second epoch on when `data.cache` is set (reading from disk included).
TORCH has PyTorch and transformers 5; FLAX has transformers 4.57, jax and flax. Each contender is a
process of its own; they take turns, so that other load on the machine falls on all. transformers'
Flax needs 20 GB for `full`. A ratio "x PyTorch" is PyTorch's time over that of the row.

--other times any other command beside these, such as our own contender in another checkout. It is
given MODEL MODE BATCH TOKENS STEPS and prints what `print_times` prints.
"""

import argparse
import shlex
import statistics
import sys

from side_by_side import BENCHMARKS, Contender, machine, peak_gib, run_rounds, table

MODES = ("frozen", "full", "cached")
# The encoder is trained in windows of so many seconds, and the teacher's states come from a cache.
OUR_MODES = ("cached", "window-4", "window-30")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder with Whisper in Hugging Face layout")
    parser.add_argument("--torch-python", help="interpreter with PyTorch; left out without one")
    parser.add_argument("--flax-python", help="interpreter with HF Flax; left out without one")
    parser.add_argument("--other", metavar="COMMAND", help="another contender of every mode")
    parser.add_argument("--modes", nargs="+", default=MODES, choices=MODES + OUR_MODES[1:])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4, help="timed steps a round")
    parser.add_argument("--rounds", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    options = parse()
    commands: dict[str, list[object]] = {"ours": [sys.executable, BENCHMARKS / "ours_step.py"]}
    if options.other:
        commands["other"] = list(shlex.split(options.other))
    if options.torch_python:
        commands["PyTorch"] = [options.torch_python, BENCHMARKS / "peer_torch.py"]
    if options.flax_python:
        commands["HF Flax"] = [options.flax_python, BENCHMARKS / "peer_flax.py", "step"]
    sizes = (options.batch_size, options.tokens, options.steps)
    contenders = [
        Contender(f"{name} {mode}", [*command, options.model, mode, *sizes])
        for mode in options.modes
        for name, command in commands.items()
        if mode not in OUR_MODES or name in ("ours", "other")
    ]
    reports = run_rounds(contenders, options.rounds)
    median = {name: statistics.median(report["seconds"]) for name, report in reports.items()}
    rivals = [name for name in commands if name != "ours"]
    rows = []
    for contender, report in reports.items():
        mode = contender.rsplit(" ", 1)[1]
        ratios = []
        for rival in rivals:
            # A peer has no cached mode: ours is compared with its frozen one.
            other = f"{rival} {mode}" if f"{rival} {mode}" in median else f"{rival} frozen"
            ratios.append(f"{median[other] / median[contender]:.2f}" if other in median else "-")
        low, high = min(report["seconds"]), max(report["seconds"])
        seconds = f"{median[contender]:.2f} ({low:.2f} to {high:.2f})"
        rows.append(
            [contender, seconds, *ratios, f"{report['first_seconds']:.0f}", peak_gib(report)]
        )
    print(f"\n{options.model}, batch {options.batch_size} x {options.tokens} tokens, {machine()}\n")
    rivals = [f"x {rival}" for rival in rivals]
    print(table(["", "seconds a step", *rivals, "first step, s", "peak GiB"], rows))


if __name__ == "__main__":
    main()
