"""`fastwhisper plot`: draws losses, weights, learning rate and error rates of runs by step."""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastwhisper_jax.errors import InputError, extra
from fastwhisper_jax.files import Path
from fastwhisper_jax.training.metrics_files import FILE_NAME, read_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Each panel has a title, says whether its axis is logarithmic, and labels its metrics. The first
# metric is drawn solid, the next ones dashed, dotted and so on.
PANELS: tuple[tuple[str, bool, Mapping[str, str]], ...] = (
    (
        "loss a token",
        True,
        {
            "loss": "objective",
            "ce": "CE",
            "kl_teacher": "KL teacher",
            "kl_self": "KL self",
            "hidden": "hidden states",
        },
    ),
    (
        "weights",
        False,
        {
            "teacher_weight": "teacher",
            "self_weight": "self",
            "ce_weight": "CE",
            "hidden_weight": "hidden states",
        },
    ),
    ("learning rate", False, {"learning_rate": "learning rate"}),
    ("error rate on the eval set, %", False, {"eval_wer": "WER", "eval_cer": "CER"}),
)
LINE_STYLES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito's
# A garbled transcript can be ten times as long as its reference. The axis leaves such values out.
HIGHEST_PERCENT = 100.0


def run(run_dirs: Sequence[Path], out: Path) -> None:
    """Draws the metrics of one or several runs into one picture.

    Args:
        run_dirs: the runs. Each gets a colour and the name of its folder.
        out: the picture. Its ending chooses the format: png, svg or pdf.

    Raises:
        InputError: a folder holds no metrics, the picture cannot be written, or matplotlib is not
            installed.
    """
    runs = {str(run_dir): read_metrics(run_dir) for run_dir in run_dirs}
    try:
        import matplotlib
    except ImportError as error:
        raise InputError(
            f"plot needs matplotlib, which is not installed; {extra('plot')}"
        ) from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7), layout="constrained")
    for axis, (title, is_logarithmic, labels) in zip(axes.flat, PANELS, strict=True):
        names = _of_all_sets(labels, runs)
        if not any(row.get(name) for rows in runs.values() for row in rows for name in names):
            axis.remove()  # no run has these metrics, such as error rates without evaluation
            continue
        _draw(axis, runs, names, 100.0 if title.endswith("%") else 1.0, is_logarithmic)
        axis.set_title(title)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if is_logarithmic:
            axis.set_yscale("log")
        if title.endswith("%"):
            axis.set_ylim(0, min(axis.get_ylim()[1], HIGHEST_PERCENT))
    handles = [
        pyplot.Line2D([], [], color=COLOURS[index % len(COLOURS)], label=Path(name).name)
        for index, name in enumerate(runs)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    try:
        figure.savefig(out, dpi=150)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{out} cannot be written ({error}); name a .png, .svg or .pdf in a folder that exists"
        ) from error
    finally:
        pyplot.close(figure)


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Reads the rows of a run's metrics.

    Raises:
        InputError: the run has no metrics.
    """
    rows = [json.loads(line) for _, line in read_lines(run_dir)]
    if not rows:
        raise InputError(
            f"{run_dir} has no metrics (no row in a {FILE_NAME}); name the --run-dir of a training "
            "that has logged its first step"
        )
    return rows


def _of_all_sets(
    labels: Mapping[str, str], runs: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, str]:
    """The labels of the metrics that were logged, those of named eval sets and the EMA among them.

    The label of "dev/eval_wer" is "WER dev" if that of "eval_wer" is "WER".
    """
    logged = dict.fromkeys(metric for rows in runs.values() for row in rows for metric in row)
    return {
        metric: f"{label} {metric.removesuffix(name)}".rstrip(" /")
        for name, label in labels.items()
        for metric in logged
        if metric.split("/")[-1] == name
    }


def _draw(
    axis: "Axes",
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    names: Mapping[str, str],
    scale: float,
    is_logarithmic: bool,
) -> None:
    """Draws metrics of several runs, multiplied by a scale, into one panel."""
    shown: set[str] = set()
    for index, rows in enumerate(runs.values()):
        for name, style in zip(names, itertools.cycle(LINE_STYLES)):
            points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
            # A logarithmic axis cannot show 0. The KL term of the self teacher starts at 0.
            if is_logarithmic:
                points = [(step, value) for step, value in points if value > 0]
            if not any(value for _, value in points):
                continue
            steps, values = zip(*points, strict=True)
            axis.plot(
                steps,
                [value * scale for value in values],
                linestyle=style,
                color=COLOURS[index % len(COLOURS)],
                marker="o" if len(points) < 30 else None,
                markersize=3,
                linewidth=1.2,
            )
            shown.add(name)
    for (name, label), style in zip(names.items(), itertools.cycle(LINE_STYLES)):
        if name in shown and len(names) > 1:
            axis.plot([], [], linestyle=style, color="0.3", label=label)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize="small")
