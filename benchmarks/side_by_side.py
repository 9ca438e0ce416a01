"""Runs contenders in processes of their own, in turn, and prints their figures as a table."""

import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parent
FASTWHISPER = (
    sys.executable,
    "-c",
    "import sys; from fastwhisper_jax.cli import main; sys.exit(main())",
)


@dataclasses.dataclass(frozen=True)
class Contender:
    """A program that is timed.

    Attributes:
        name: in the table.
        command: what to run. A script of this folder is named by its file name.
        report: the JSON file that it writes; None if the last line of its output is its report.
    """

    name: str
    command: Sequence[object]
    report: Path | None = None


def run(contender: Contender) -> dict[str, Any]:
    """Runs a contender to its end and returns its report, with "peak_bytes" of its memory.

    Raises:
        SystemExit: it failed. The message shows the last lines of its standard error.
    """
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{BENCHMARKS.parent}:{BENCHMARKS}",
    }
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        command = [str(part) for part in contender.command]
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        if process.returncode:
            tail = "".join(errors.readlines()[-5:])
            sys.exit(f"{contender.name} ended with {process.returncode}:\n{tail}")
        text = contender.report.read_text() if contender.report else out.readlines()[-1]
    report: dict[str, Any] = json.loads(text)
    return report | {"peak_bytes": usage.ru_maxrss * 1024}  # KiB on Linux


def run_rounds(
    contenders: Sequence[Contender], rounds: int, seconds: str = "seconds"
) -> dict[str, dict[str, Any]]:
    """Runs all contenders `rounds` times in turn, so that other load on the machine hits all.

    Args:
        contenders: what to run.
        rounds: how often.
        seconds: the field of a report that holds its time, or a list of times.

    Returns:
        The last report of each contender by name, with the times of all rounds in "seconds".
    """
    reports: dict[str, dict[str, Any]] = {}
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for index in range(rounds):
        for contender in contenders:
            name = contender.name
            reports[name] = run(contender)
            measured = reports[name].get("seconds", reports[name].get(seconds))
            times[name] += measured if isinstance(measured, list) else [measured]
            reports[name]["seconds"] = times[name]
            print(
                f"round {index + 1}: {name}: {statistics.median(times[name]):.2f} s",
                file=sys.stderr,
            )
    return reports


def print_times(seconds: Sequence[float]) -> None:
    """Prints a contender's report: the times of its steps, of which the first one compiles."""
    print(json.dumps({"first_seconds": seconds[0], "seconds": list(seconds[1:])}))


def peak_gib(report: dict[str, Any]) -> str:
    return f"{report['peak_bytes'] / 2**30:.1f}"


def machine() -> str:
    """The machine that the figures are measured on."""
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
