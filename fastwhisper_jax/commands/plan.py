"""`fastwhisper plan`: compiles a recipe's steps for a TPU slice that need not be there."""

import dataclasses
import json
from collections.abc import Callable

from fastwhisper_jax.arguments import PlanArguments
from fastwhisper_jax.config import Config
from fastwhisper_jax.cost.report import CostReport
from fastwhisper_jax.cost.topology import find_slice
from fastwhisper_jax.distillation.recipe_cost import advice, measure_recipe
from fastwhisper_jax.evaluation.reports import check_report_path
from fastwhisper_jax.files import write_whole
from fastwhisper_jax.training.sharding import check_batch, make_mesh

Log = Callable[[str], None]


def run(config: Config, options: PlanArguments, log: Log) -> bool:
    """Measures a recipe, prints and writes its report; returns whether the recipe fits.

    Raises:
        InputError: topology, batch or models cannot be used.
    """
    if options.report is not None:
        check_report_path(options.report)
    report = measure_options(config, options, log)
    for line in report.closing_lines():
        log(line)
    if options.report is not None:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        write_whole(options.report, json.dumps(report.as_json(), indent=2) + "\n")
    if not report.fits:
        log(advice(config, report))
    return report.fits


def measure_options(config: Config, options: PlanArguments, log: Log) -> CostReport:
    """Measures a recipe on the slice, batch and tokens that the command line names."""
    slice_ = find_slice(options.topology, options.slices)
    axes = config.mesh
    mesh = make_mesh(axes.data, axes.fsdp, axes.tensor, devices=list(slice_.devices))
    name = "training.global_batch_size"
    if options.batch_size is not None:
        name = "--batch-size"
        training = dataclasses.replace(config.training, global_batch_size=options.batch_size)
        config = dataclasses.replace(config, training=training)
    check_batch(name, config.training.global_batch_size, mesh, config.training.accumulation_steps)
    tokens = options.target_tokens
    return measure_recipe(
        config,
        options.recipe,
        slice_,
        mesh,
        tokens=config.data.target_buckets[-1] if tokens is None else tokens,
        window_seconds=options.window,
        steps_only=options.steps_only,
        log=log,
    )
