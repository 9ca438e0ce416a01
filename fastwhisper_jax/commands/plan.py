"""`fastwhisper plan`: compiles a recipe's steps for a TPU slice that need not be there."""

import json
from collections import Counter
from collections.abc import Callable, Iterator

import jax
from jax.sharding import Mesh, SingleDeviceSharding

from fastwhisper_jax.arguments import PlanArguments
from fastwhisper_jax.config import Config
from fastwhisper_jax.cost.decoding import Decoding, measure_decoding
from fastwhisper_jax.cost.measure import Measured, measure
from fastwhisper_jax.cost.model_flops import StepSizes, train_step_flops
from fastwhisper_jax.cost.report import PhaseCost, Plan, heading, phase_lines, versions
from fastwhisper_jax.cost.topology import Slice, find_slice
from fastwhisper_jax.distillation.model_options import check_tensor_axis, model_options
from fastwhisper_jax.distillation.pair import PairShapes
from fastwhisper_jax.distillation.run import make_step_config
from fastwhisper_jax.distillation.run_schedule import RunSchedule, make_run_schedule
from fastwhisper_jax.distillation.shapes import batch_shapes, model_shapes, param_shapes, with_batch
from fastwhisper_jax.distillation.task import make_task
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.evaluation.reports import check_report_path
from fastwhisper_jax.files import write_whole
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.training.sharding import batch_shards, check_batch, make_mesh
from fastwhisper_jax.training.state import abstract_state
from fastwhisper_jax.training.step import jitted_step
from fastwhisper_jax.training.task import Params, Phase

Say = Callable[[str], None]

# Of a recipe that counts epochs: only the share of its phases matters.
STEPS_UNKNOWN = 10_000


def run(config: Config, options: PlanArguments, say: Say) -> bool:
    """Plans a recipe, prints and writes what was found; returns whether it fits.

    Raises:
        InputError: topology, batch or models cannot be used.
    """
    if options.report is not None:
        check_report_path(options.report)
    found = make(config, options, say)
    for line in found.closing_lines():
        say(line)
    if options.report is not None:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        write_whole(options.report, json.dumps(found.report(), indent=2) + "\n")
    if not found.fits:
        say(advice(config, found))
    return found.fits


def make(config: Config, options: PlanArguments, say: Say) -> Plan:
    """Compiles every phase of the recipe's step, and both models' decoding."""
    slice_ = find_slice(options.topology, options.slices)
    axes = config.mesh
    mesh = make_mesh(axes.data, axes.fsdp, axes.tensor, devices=list(slice_.devices))
    rows = options.batch_size
    if rows is None:
        rows = config.training.global_batch_size
    tokens = options.target_tokens
    if tokens is None:
        tokens = config.data.target_buckets[-1]
    name = "--batch-size" if options.batch_size is not None else "training.global_batch_size"
    check_batch(name, rows, mesh, config.training.accumulation_steps)
    config = with_batch(config, rows)
    models, teacher_params = model_shapes(config, mesh)
    longest = min(models.teacher_dims.n_text_ctx, models.student.dims.n_text_ctx)
    if not 1 <= tokens <= longest:
        raise InputError(f"--target-tokens {tokens}: the models hold 1 to {longest}; choose one")
    dims = {"teacher": models.teacher_dims, "student": models.student.dims}
    check_tensor_axis(dims, [tokens], mesh)
    steps = config.training.steps or STEPS_UNKNOWN
    plan = make_run_schedule(config.objective, config.optimizer, steps)
    compiler = Compiler(config, models, teacher_params, plan, mesh, slice_)
    say(f"{options.recipe} on {heading(slice_, dict(mesh.shape), rows, tokens)}")
    say(f"compiling with {versions()}; that takes minutes for a large model")
    phases = []
    for phase, count in run_phases(plan):
        phases.append(PhaseCost(phase, count, compiler.step(phase, rows, tokens)))
        for line in phase_lines(phases[-1], slice_, rows, count / steps):
            say(line)
    costliest = max(phases, key=lambda phase: phase.seconds)
    largest = teacher = student = None
    if not options.steps_only:
        say("compiling another batch size and the decoding of both models")
        largest = compiler.largest_batch(costliest, rows, tokens)
        teacher, student = compiler.decoding(rows, tokens)
    return Plan(
        recipe=options.recipe,
        slice=slice_,
        mesh=dict(mesh.shape),
        global_batch_size=rows,
        target_tokens=tokens,
        phases=tuple(phases),
        costliest=costliest,
        closed_form_flops=compiler.closed_form(costliest.phase, rows, tokens),
        largest_batch=largest,
        knows_steps=config.training.steps is not None,
        teacher=teacher,
        student=student,
    )


def run_phases(plan: RunSchedule) -> list[tuple[Phase, int]]:
    """The phases of a run by their first step, and how many of its steps each has in all."""
    return list(Counter(map(plan.phase, range(plan.total_steps))).items())


class Compiler:
    """Compiles a recipe's programs for one slice."""

    def __init__(
        self,
        config: Config,
        models: PairShapes,
        teacher_params: Params,
        schedule: RunSchedule,
        mesh: Mesh,
        slice_: Slice,
    ) -> None:
        self._config, self._models, self._teacher_params = config, models, teacher_params
        self._schedule, self._mesh, self._slice = schedule, mesh, slice_
        self._task = make_task(config, models, schedule, mesh, load_student=dict)
        self._state = abstract_state(self._task, schedule.optimizer, mesh)

    def step(self, phase: Phase, rows: int, tokens: int) -> Measured | None:
        """The train step of a phase on a global batch of `rows`."""
        shardings = jax.tree.map(lambda x: x.sharding, self._state)
        step_config = make_step_config(self._config, self._schedule)
        step = jitted_step(self._task, phase, step_config, shardings)
        batch = batch_shapes(
            self._config,
            self._models.teacher_dims,
            self._mesh,
            rows,
            tokens,
            runs_teacher=self._schedule.teacher_end > 0,
        )
        return measure(step, (self._state, self._teacher_params, batch), self._slice.chip)

    def closed_form(self, phase: Phase, rows: int, tokens: int) -> float | None:
        """Flops a chip by the models' sizes; None where a cache stands in for a part."""
        if self._config.data.encoder_cache is not None:
            return None
        params = self._state.params
        sizes = StepSizes(
            teacher=self._models.teacher_dims,
            student=self._models.student.dims,
            shares_encoder=self._models.student.shares_encoder,
            rematerialise=self._config.student.rematerialise,
            trains_encoder="encoder" in params,
            trains_embedding="embed_tokens" in params.get("decoder", {}),
        )
        return train_step_flops(sizes, phase, rows, tokens) / self._mesh.size

    def largest_batch(self, planned: PhaseCost, rows: int, tokens: int) -> int | None:
        """Rows a chip that fit, if memory grows as it does between half the batch and all of it."""
        measured = planned.measured
        shards = batch_shards(self._mesh.shape)
        unit = shards * self._config.training.accumulation_steps
        here = rows // shards
        other = max(rows // unit // 2, 1) * unit
        if other == rows:
            other = 2 * rows
        beside = self.step(planned.phase, other, tokens)
        there = other // shards
        if measured is None or beside is None:
            known, at = (measured, here) if measured else (beside, there)
            fits = known is not None and known.total_gib <= self._slice.chip.hbm_gib
            return at if fits else None
        growth = (measured.total_gib - beside.total_gib) / (here - there)
        spare = self._slice.chip.hbm_gib - measured.total_gib
        micro = self._config.training.accumulation_steps
        largest = int(here + spare / max(growth, 1e-6)) // micro * micro
        return largest if largest > 0 else None

    def decoding(self, rows: int, tokens: int) -> Iterator[Decoding | None]:
        """Teacher and student, each whole on one chip with its share of the batch."""
        device = self._slice.devices[0]
        one = make_mesh(1, 1, devices=[device])
        share = rows // batch_shards(self._mesh.shape)

        def measured(dims: ModelDimensions, dtype: str) -> Decoding | None:
            return measure_decoding(
                param_shapes(dims, dtype),
                dims,
                model_options(one, dtype),
                share,
                tokens,
                SingleDeviceSharding(device),
                self._slice.chip,
            )

        yield measured(self._models.teacher_dims, self._config.teacher.dtype)
        yield measured(self._models.student.dims, self._config.student.dtype)


def advice(config: Config, found: Plan) -> str:
    """What to change about a recipe that does not fit."""
    ways = []
    if found.largest_batch:
        rows = found.largest_batch * found.batch_shards
        ways.append(
            f"--training.global_batch_size {rows} (by its growth), or as many times "
            "--training.accumulation_steps"
        )
    if config.student.rematerialise != "everything":
        ways.append("--student.rematerialise everything")
    if found.mesh["fsdp"] < len(found.slice.devices):
        ways.append(f"--mesh.fsdp {2 * found.mesh['fsdp']}")
    ways.append("a larger slice")
    return f"it does not fit {found.slice.chip.hbm_gib} GiB a chip; try {', or '.join(ways)}"
