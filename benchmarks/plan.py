"""Compares the compiled train step with that of transformers' Flax, for a TPU slice, in one run.

    python benchmarks/plan.py configs/askd_large_v3.py --flax-python FLAX

The work: the recipe's teacher and student, CE + KL, AdamW, the encoder frozen and run once,
bfloat16, compiled from shapes alone. If the recipe has several phases, the first is compared. FLAX
has transformers 4.57, jax, flax and libtpu. Both contenders compile with the same options, and one
rule counts both programs (a loop's body as often as it runs, a kernel by its own cost estimate).
The compiler reports the memory. Each contender is a process of its own; they take turns.
"""

import argparse
import dataclasses
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from side_by_side import BENCHMARKS, FASTWHISPER, Contender, machine, run_rounds, table

from fastwhisper_jax.config.recipe import load_recipe
from fastwhisper_jax.cost.chips import CHIPS
from fastwhisper_jax.cost.hlo.cost import program_cost
from fastwhisper_jax.cost.hlo.text import parse as parse_program
from fastwhisper_jax.cost.roofline import roofline
from fastwhisper_jax.distillation.shapes import model_dimensions

GIB = 2**30
# The fields of a report, and how they are printed: label, unit, format.
ROWS = {
    "argument_gib": ("arguments, GiB", 1.0, "{:.2f}"),
    "temp_gib": ("memory beside them, GiB", 1.0, "{:.2f}"),
    "flops": ("Tflop", 1e12, "{:.2f}"),
    "bytes_accessed": ("accessed, GB", 1e9, "{:.1f}"),
    "hbm_bytes": ("of these in HBM, GB", 1e9, "{:.1f}"),
    "received": ("received from other chips, GB", 1e9, "{:.2f}"),
    "roofline_seconds": ("roofline, ms", 1e-3, "{:.0f}"),
    "seconds": ("to compile, s", 1.0, "{:.0f}"),
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", help="its teacher is a published Whisper or a local folder")
    parser.add_argument("--flax-python", required=True, help="interpreter with HF Flax and libtpu")
    parser.add_argument("--topology", default="v5e:2x4")
    parser.add_argument("--batch-size", type=int, default=64, help="of all chips")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    options = parse()
    dims = model_dimensions(load_recipe(Path(options.recipe)).teacher.path)
    sizes = (options.topology, options.batch_size, options.tokens)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dims_file, program, report = (folder / f for f in ("dims.json", "program.txt", "plan.json"))
        dims_file.write_text(json.dumps(dataclasses.asdict(dims)))
        plan = [*FASTWHISPER, "plan", options.recipe, "--topology", options.topology]
        plan += ["--batch-size", options.batch_size, "--target-tokens", options.tokens]
        plan += ["--steps-only", "--report", report]
        flax = [options.flax_python, BENCHMARKS / "peer_flax.py", "plan", dims_file]
        contenders = [
            Contender("ours", plan, report),
            Contender("HF Flax", [*flax, *sizes, program]),
        ]
        reports = run_rounds(contenders, options.rounds, seconds="compile_seconds")
        theirs = reports["HF Flax"]
        theirs |= counted(program.read_text(), theirs, options.topology)
    ours = reports["ours"]["phases"][0] | {"seconds": reports["ours"]["seconds"]}
    ours["received"] = sum(ours["collective_bytes"].values())
    lines = []
    for field, (label, unit, form) in ROWS.items():
        pair = [
            statistics.median(r[field]) if field == "seconds" else r[field] for r in (ours, theirs)
        ]
        printed = [form.format(value / unit) for value in pair]
        lines.append([label, *printed, f"{pair[0] / pair[1]:.2f}"])
    chips = f"{options.topology}, batch {options.batch_size} x {options.tokens} tokens"
    print(f"\n{options.recipe} on {chips}; a chip; compiled on {machine()}\n")
    print(table(["", "ours", "HF Flax", "ratio"], lines))
    own = theirs["own_count"]
    print(
        f"\nXLA's own count of HF Flax's program, which has no loops: {own['flops'] / 1e12:.2f} "
        f"Tflop, {own['bytes accessed'] / 1e9:.1f} GB accessed"
    )


def counted(program: str, report: dict[str, Any], topology: str) -> dict[str, Any]:
    """Counts the cost of a compiled program on a chip by the rule of `fastwhisper plan`."""
    cost = program_cost(parse_program(program))
    return {
        "argument_gib": report["argument_bytes"] / GIB,
        "temp_gib": report["temp_bytes"] / GIB,
        "flops": cost.flops,
        "bytes_accessed": cost.bytes_accessed,
        "hbm_bytes": cost.hbm_bytes,
        "received": cost.collective_bytes.total(),
        "roofline_seconds": roofline(cost, CHIPS[topology.split(":")[0]]).seconds,
    }


if __name__ == "__main__":
    main()
