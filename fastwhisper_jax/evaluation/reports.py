"""Writes a report to OUT.json, and its utterances to OUT.hypotheses.jsonl."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.evaluation.evaluate import Report, TranscribedUtterance
from fastwhisper_jax.files import write_whole


def hypotheses_path(path: str | Path) -> Path:
    """The file that holds a report's utterances: "out.hypotheses.jsonl" for "out.json"."""
    path = Path(path)
    return path.with_name(path.name.removesuffix(".json") + ".hypotheses.jsonl")


def check_report_path(path: str | Path) -> None:
    """Checks that a report can be written, so that an error does not cost hours of work.

    Raises:
        InputError: `path` is a folder, or no file can be created there.
    """
    path = Path(path)
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(
            f"report {str(path)!r} cannot be written; name a file in a folder that is writable"
        )


def write_report(
    report: Report, utterances: Sequence[TranscribedUtterance], path: str | Path
) -> None:
    """Writes a report and its utterances; no file is ever half written.

    The report is written last: if it exists, its utterances are complete.

    Args:
        report: the report.
        utterances: written as one JSON object a line, in this order.
        path: OUT.json; missing folders are created.

    Raises:
        InputError: `path` cannot be written.
    """
    check_report_path(path)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(dataclasses.asdict(row), ensure_ascii=False) for row in utterances]
    write_whole(hypotheses_path(path), "".join(line + "\n" for line in lines))
    write_whole(Path(path), json.dumps(dataclasses.asdict(report), indent=2) + "\n")
