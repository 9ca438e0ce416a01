"""Running contenders: each in a process of its own, one after the other, and tables of ratios."""

import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PACKAGE = HERE.parent.parent


@dataclasses.dataclass(frozen=True)
class Contender:
    """A script of this folder under an interpreter.

    Attributes:
        name: in the table.
        python: interpreter that runs it.
        script: file name.
        arguments: of the script.
    """

    name: str
    python: str
    script: str
    arguments: tuple[str, ...]


def run(contender: Contender) -> dict[str, Any]:
    """Runs a contender to its end; its last line of output is its report.

    Raises:
        SystemExit: it failed; its own last lines are shown.
    """
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{PACKAGE}:{PACKAGE / 'benchmarks'}",
    }
    command = [contender.python, str(HERE / contender.script), *contender.arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        tail = "\n".join(done.stderr.splitlines()[-5:])
        sys.exit(f"{contender.name} ended with {done.returncode}:\n{tail}")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def run_rounds(
    contenders: Sequence[Contender], rounds: int, seconds: str = "seconds"
) -> list[dict[str, Any]]:
    """Runs all contenders `rounds` times in turn, so that what else the machine does hits all.

    Returns:
        For each contender its last report, with the times (list under `seconds`) of all rounds.
    """
    reports: list[dict[str, Any]] = [{} for _ in contenders]
    for index in range(rounds):
        for place, contender in enumerate(contenders):
            times = reports[place].get(seconds, [])
            reports[place] = run(contender)
            reports[place][seconds] = times + reports[place][seconds]
            middle = statistics.median(reports[place][seconds])
            print(f"round {index + 1}: {contender.name}: {middle:.2f} s", file=sys.stderr)
    return reports


def machine() -> str:
    """What the figures were taken on."""
    names = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{os.cpu_count()} cores of {names[0] if names else platform.machine()}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are figures."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
