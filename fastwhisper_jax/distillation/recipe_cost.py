"""What a recipe costs on a slice: its steps and both models' decoding, compiled from shapes."""

import dataclasses
from collections import Counter
from collections.abc import Callable

import jax
from jax.sharding import Mesh, SingleDeviceSharding

from fastwhisper_jax.audio.windows import window_positions
from fastwhisper_jax.config import Config
from fastwhisper_jax.cost.decoding import DecodingCost, measure_decoding
from fastwhisper_jax.cost.measure import Measured, measure
from fastwhisper_jax.cost.model_flops import StepSizes, train_step_flops
from fastwhisper_jax.cost.report import CostReport, PhaseCost, heading, phase_lines, versions
from fastwhisper_jax.cost.topology import Slice
from fastwhisper_jax.distillation.model_options import check_tensor_axis, model_options
from fastwhisper_jax.distillation.pair import PairShapes
from fastwhisper_jax.distillation.run import make_step_config
from fastwhisper_jax.distillation.run_schedule import RunSchedule, make_run_schedule
from fastwhisper_jax.distillation.shapes import batch_shapes, model_shapes, param_shapes
from fastwhisper_jax.distillation.task import make_task
from fastwhisper_jax.distillation.teacher_cache import cached_parts
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.training.sharding import batch_shards, make_mesh
from fastwhisper_jax.training.state import abstract_state
from fastwhisper_jax.training.step import jitted_step
from fastwhisper_jax.training.task import Params, Phase

Log = Callable[[str], None]

# Stands for the steps of a recipe that counts epochs: only the share of each phase is used.
STEPS_UNKNOWN = 10_000


def measure_recipe(
    config: Config,
    recipe: str,
    slice_: Slice,
    mesh: Mesh,
    *,
    tokens: int,
    window_seconds: float | None,
    steps_only: bool,
    log: Log,
) -> CostReport:
    """Compiles the train step of every phase of a run, and both models' decoding.

    Args:
        config: the recipe. Its global batch size is that of the step.
        recipe: its name in the report.
        slice_: the slice to compile for.
        mesh: of the slice's devices.
        tokens: T.
        window_seconds: one of the student's windows; None for the longest.
        steps_only: leaves out the largest batch and decoding.
        log: prints a line for the user.

    Raises:
        InputError: models or tokens cannot be used.
    """
    rows = config.training.global_batch_size
    models, teacher_params = model_shapes(config, mesh)
    longest = min(models.teacher_dims.n_text_ctx, models.student.dims.n_text_ctx)
    if not 1 <= tokens <= longest:
        raise InputError(f"--target-tokens {tokens}: the models hold 1 to {longest}; choose one")
    dims = {"teacher": models.teacher_dims, "student": models.student.dims}
    check_tensor_axis(dims, [tokens], mesh)
    windows = models.student.windows
    if window_seconds is not None:
        windows = windows.only(window_seconds, "--window")
    window = windows.longest
    steps = config.training.steps or STEPS_UNKNOWN
    schedule = make_run_schedule(config.objective, config.optimizer, steps)
    compiler = RecipeCompiler(config, models, teacher_params, schedule, mesh, slice_, window)
    log(f"{recipe} on {heading(slice_, dict(mesh.shape), rows, tokens)}, windows of {window:g} s")
    log(f"compiling with {versions()}; that takes minutes for a large model")
    phases = []
    for phase, count in count_phases(schedule):
        phases.append(PhaseCost(phase, count, compiler.step(phase, rows, tokens)))
        for line in phase_lines(phases[-1], slice_, rows, count / steps):
            log(line)
    costliest = max(phases, key=lambda phase: phase.seconds)
    largest = teacher = student = None
    if not steps_only:
        log("compiling another batch size and the decoding of both models")
        largest = compiler.largest_batch(costliest, rows, tokens)
        teacher = compiler.decoding(models.teacher_dims, config.teacher.dtype, rows, tokens)
        student = compiler.decoding(compiler.heard, config.student.dtype, rows, tokens)
    return CostReport(
        recipe=recipe,
        slice=slice_,
        mesh=dict(mesh.shape),
        global_batch_size=rows,
        target_tokens=tokens,
        window_seconds=window,
        phases=tuple(phases),
        costliest=costliest,
        closed_form_flops=compiler.closed_form(costliest.phase, rows, tokens),
        largest_batch=largest,
        knows_steps=config.training.steps is not None,
        teacher=teacher,
        student=student,
    )


def count_phases(schedule: RunSchedule) -> list[tuple[Phase, int]]:
    """The phases of a run, ordered by their first step, with the number of steps of each."""
    return list(Counter(map(schedule.phase, range(schedule.total_steps))).items())


class RecipeCompiler:
    """Compiles a recipe's programs for one slice."""

    def __init__(
        self,
        config: Config,
        models: PairShapes,
        teacher_params: Params,
        schedule: RunSchedule,
        mesh: Mesh,
        slice_: Slice,
        window_seconds: float,
    ) -> None:
        self._window_seconds = window_seconds
        # The student as if its window were the only one.
        self.heard = dataclasses.replace(
            models.student.dims, n_audio_ctx=window_positions(window_seconds)
        )
        self._config, self._models, self._teacher_params = config, models, teacher_params
        self._schedule, self._mesh, self._slice = schedule, mesh, slice_
        self._task = make_task(config, models, schedule, mesh, load_student=dict)
        self._state = abstract_state(self._task, schedule.optimizer, mesh)

    def step(self, phase: Phase, rows: int, tokens: int) -> Measured | None:
        """Measures the train step of a phase on a global batch of `rows`."""
        shardings = jax.tree.map(lambda x: x.sharding, self._state)
        step_config = make_step_config(self._config, self._schedule)
        step = jitted_step(self._task, phase, step_config, shardings)
        batch = batch_shapes(
            self._config,
            self._models,
            self._mesh,
            rows,
            tokens,
            runs_teacher=self._schedule.teacher_end > 0,
            window_seconds=self._window_seconds,
        )
        return measure(step, (self._state, self._teacher_params, batch), self._slice.chip)

    def closed_form(self, phase: Phase, rows: int, tokens: int) -> float | None:
        """Flops per chip from the models' sizes; None if the step compares hidden states."""
        if phase.compares_hidden_states:
            return None
        runs_teacher = self._schedule.teacher_end > 0
        cached = cached_parts(self._config, self._models, runs_teacher)
        params, teacher = self._state.params, self._models.teacher_dims
        is_whole = self.heard.n_audio_ctx == teacher.n_audio_ctx
        hears_alike = is_whole and not self._config.data.augments_audio
        sizes = StepSizes(
            teacher=teacher,
            student=self.heard,
            shares_encoder=self._models.student.shares_encoder and hears_alike,
            rematerialise=self._config.student.rematerialise,
            trains_encoder="encoder" in params,
            trains_embedding="embed_tokens" in params.get("decoder", {}),
            reads_encoder_states=cached.encoder_states,
            reads_teacher_states=cached.teacher_states,
        )
        return train_step_flops(sizes, phase, rows, tokens) / self._mesh.size

    def largest_batch(self, phase: PhaseCost, rows: int, tokens: int) -> int | None:
        """Estimates how many rows a chip can hold.

        A second batch size, half of the first, gives the growth of memory per row; the estimate
        continues that line.

        Args:
            phase: measured with `rows`.
            rows: global batch size.
            tokens: T.
        """
        measured, hbm_gib = phase.measured, self._slice.chip.hbm_gib
        shards = batch_shards(self._mesh.shape)
        accumulation_steps = self._config.training.accumulation_steps
        unit = shards * accumulation_steps
        other_rows = max(rows // unit // 2, 1) * unit
        if other_rows == rows:
            other_rows = 2 * rows
        other = self.step(phase.phase, other_rows, tokens)
        per_chip, other_per_chip = rows // shards, other_rows // shards
        if measured is None or other is None:
            known, known_rows = (measured, per_chip) if measured else (other, other_per_chip)
            fits = known is not None and known.total_gib <= hbm_gib
            return known_rows if fits else None
        growth = (measured.total_gib - other.total_gib) / (per_chip - other_per_chip)
        spare = hbm_gib - measured.total_gib
        largest = int(per_chip + spare / max(growth, 1e-6))
        largest = largest // accumulation_steps * accumulation_steps
        return largest if largest > 0 else None

    def decoding(
        self, dims: ModelDimensions, dtype: str, rows: int, tokens: int
    ) -> DecodingCost | None:
        """Measures a whole model on one chip, with the chip's share of the batch."""
        device = self._slice.devices[0]
        return measure_decoding(
            param_shapes(dims, dtype),
            dims,
            model_options(make_mesh(1, 1, devices=[device]), dtype),
            rows // batch_shards(self._mesh.shape),
            tokens,
            SingleDeviceSharding(device),
            self._slice.chip,
        )


def advice(config: Config, report: CostReport) -> str:
    """What to change in a recipe that does not fit."""
    ways = []
    if report.largest_batch:
        rows = report.largest_batch * report.batch_shards
        ways.append(
            f"--training.global_batch_size {rows} (by its growth), or as many times "
            "--training.accumulation_steps"
        )
    if config.student.rematerialise != "everything":
        ways.append("--student.rematerialise everything")
    if report.mesh["fsdp"] < len(report.slice.devices):
        ways.append(f"--mesh.fsdp {2 * report.mesh['fsdp']}")
    ways.append("a larger slice")
    return f"it does not fit {report.slice.chip.hbm_gib} GiB a chip; try {', or '.join(ways)}"
