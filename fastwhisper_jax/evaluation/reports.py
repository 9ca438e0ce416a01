"""Writing a report: OUT.json, and the hypotheses behind it in OUT.hypotheses.jsonl."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.evaluation.evaluate import Hypothesis, Report
from fastwhisper_jax.files import write_whole


def hypotheses_path(path: str | Path) -> Path:
    """Where the hypotheses of the report `path` stand: "out.json" has "out.hypotheses.jsonl"."""
    path = Path(path)
    return path.with_name(path.name.removesuffix(".json") + ".hypotheses.jsonl")


def check_report_path(path: str | Path) -> None:
    """Makes sure, before hours of work, that a report can be written.

    Raises:
        InputError: `path` is a folder, or no file can be made there.
    """
    path = Path(path)
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(
            f"report {str(path)!r} cannot be written; name a file in a folder that is writable"
        )


def write_report(report: Report, hypotheses: Sequence[Hypothesis], path: str | Path) -> None:
    """Writes a report and its hypotheses, each file whole or not at all.

    The report comes last: where it stands, its hypotheses are complete.

    Args:
        report: what the model scored.
        hypotheses: one JSON object a line, in this order.
        path: OUT.json; missing folders are made.

    Raises:
        InputError: `path` cannot be written.
    """
    check_report_path(path)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(dataclasses.asdict(row), ensure_ascii=False) for row in hypotheses]
    write_whole(hypotheses_path(path), "".join(line + "\n" for line in lines))
    write_whole(Path(path), json.dumps(dataclasses.asdict(report), indent=2) + "\n")
