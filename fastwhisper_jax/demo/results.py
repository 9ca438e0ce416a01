"""The results of the demo: a table of models for the terminal and for Markdown, and JSON."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastwhisper_jax.evaluation.evaluate import Report
from fastwhisper_jax.files import write_whole


@dataclasses.dataclass(frozen=True)
class Result:
    """One model on both test sets. Their sentences are in no training set.

    Attributes:
        name: the model's name in the table.
        seen: report on the voices that the students were trained on.
        unseen: report on voices that no model was trained on.
    """

    name: str
    seen: Report
    unseen: Report

    @property
    def rtfx(self) -> float:
        """Seconds of audio per second, over both test sets."""
        audio = self.seen.audio_seconds + self.unseen.audio_seconds
        return audio / (self.seen.wall_seconds + self.unseen.wall_seconds)

    def __str__(self) -> str:
        return (
            f"{self.name}: WER {self.seen.wer:.1%} on seen voices, {self.unseen.wer:.1%} on "
            f"unseen ones, {self.rtfx:.0f} x real time"
        )


def write_reports(
    out: Path, results: Sequence[Result], seconds: float, batch_size: int, normalizer: str
) -> None:
    """Writes report.json and report.md into the folder of the demo."""
    content = {
        "seconds": seconds,
        "batch_size": batch_size,
        "normalizer": normalizer,
        "models": _as_json(results),
    }
    write_whole(out / "report.json", json.dumps(content, indent=2) + "\n")
    write_whole(
        out / "report.md",
        f"# What the demo found\n\n{markdown_table(results)}\n\nGreedy decoding, {batch_size} "
        f"utterances at a time, float32, weights as exported, {normalizer} normaliser. ASKD and CE "
        "only: the same student, data, updates and seed.\n\n"
        "![Losses and weights over the steps](plot.png)\n",
    )


def _as_json(results: Sequence[Result]) -> dict[str, Any]:
    """The reports behind the table, by model."""
    return {
        result.name: {
            "parameters": result.seen.parameters,
            "rtfx": result.rtfx,
            "seen_voices": dataclasses.asdict(result.seen),
            "unseen_voices": dataclasses.asdict(result.unseen),
        }
        for result in results
    }


def markdown_table(results: Sequence[Result]) -> str:
    """The table in Markdown. Its columns are aligned, so a terminal shows it well too."""
    first = results[0]
    rows = [
        (
            "",
            "parameters",
            f"WER %, seen voices ({first.seen.reference_words} words)",
            f"WER %, unseen voices ({first.unseen.reference_words} words)",
            "x real time",
        ),
        *(
            (
                result.name,
                f"{result.seen.parameters:,}",
                f"{100 * result.seen.wer:.1f}",
                f"{100 * result.unseen.wer:.1f}",
                f"{result.rtfx:.0f}",
            )
            for result in results
        ),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| "
        + " | ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in rows
    ]
    rule = "".join(f"|{'-' * (w + 1)}{':' if column else '-'}" for column, w in enumerate(widths))
    return "\n".join([lines[0], rule + "|", *lines[1:]])
