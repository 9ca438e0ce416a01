"""The benchmark of the train step runs on a tiny model, without other programs."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_it_prints_a_row_for_each_of_our_modes(tiny_teacher):
    sizes = ("--batch-size", "2", "--tokens", "16", "--steps", "1", "--rounds", "1")
    command = [sys.executable, ROOT / "benchmarks/step.py", tiny_teacher, *sizes]
    # The benchmark runs on one device, as on a user's machine.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if "|" in line]
    assert rows[2:] == ["ours frozen", "ours full", "ours cached"]
