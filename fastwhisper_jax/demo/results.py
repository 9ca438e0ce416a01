"""The results of the demo, as a Markdown table and as JSON."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from fastwhisper_jax.evaluation.evaluate import Report


@dataclasses.dataclass(frozen=True)
class Result:
    """The reports of one model on both test sets. No test sentence was trained on.

    Attributes:
        name: name of the model in the table.
        seen: report on the voices that the students were trained on.
        unseen: report on voices that no model was trained on.
    """

    name: str
    seen: Report
    unseen: Report

    @property
    def rtfx(self) -> float:
        """Seconds of audio transcribed per second, over both test sets."""
        audio = self.seen.audio_seconds + self.unseen.audio_seconds
        return audio / (self.seen.wall_seconds + self.unseen.wall_seconds)


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """Returns all reports, by the name of the model."""
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
    """Returns a Markdown table whose columns are aligned, so that it can be read in a terminal."""
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
