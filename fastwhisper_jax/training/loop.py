"""The run: batches in, updates, logs, evaluations and checkpoints out."""

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from fastwhisper_jax.config import Config
from fastwhisper_jax.data.schedule import BatchSchedule
from fastwhisper_jax.distillation.assembly import (
    Models,
    RunData,
    Score,
    abstract_state,
    fingerprint,
    first_state,
    jitted_step,
    languages,
    make_evaluate,
    make_step_config,
)
from fastwhisper_jax.distillation.run_schedule import RunSchedule, make_run_schedule
from fastwhisper_jax.errors import InputError, Interrupted, TrainingError
from fastwhisper_jax.files import Path
from fastwhisper_jax.progress import progress
from fastwhisper_jax.training.checkpoints import Checkpoints
from fastwhisper_jax.training.input import device_batches, make_featurise
from fastwhisper_jax.training.interruption import stop_request
from fastwhisper_jax.training.metrics import Dispatched, MetricsLog
from fastwhisper_jax.training.state import TrainState
from fastwhisper_jax.training.step import Batch, Metrics, Phase, StepConfig, TrainStep

CHECKPOINTS = "checkpoints"
SHOWN = ("loss", "eval_wer")


def train(
    config: Config,
    run_dir: Path,
    models: Models,
    load_student: Callable[[], dict[str, Any]],
    data: RunData,
    schedule: BatchSchedule,
    mesh: Mesh,
    score: Score | None = None,
) -> TrainState:
    """Trains a student to the end of its recipe, going on from the run's newest good checkpoint.

    Args:
        config: the recipe.
        run_dir: gets metrics.jsonl, tensorboard/ and checkpoints/.
        models: teacher and student.
        load_student: the student before its first update, float32, on the host; it is not called
            where there is a checkpoint to go on from, and what it returns is not kept.
        data: what to read.
        schedule: of all its batches, see `assembly.make_batch_schedule`.
        mesh: where to run.
        score: error rates of the student with these parameters, logged as they are named.

    Returns:
        The state after the last update.

    Raises:
        InputError: the run's checkpoints or data are not those of this config.
        TrainingError: the loss or the gradient is not finite.
        Interrupted: the run was asked to stop and has saved its state.
    """
    settings = config.training
    plan = make_run_schedule(config.objective, config.optimizer, len(schedule))
    setup = make_step_config(config, models, plan, mesh)
    shapes = abstract_state(config, models.student_params, models.shares_encoder, plan, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, shapes)
    featurise = make_featurise(
        models.teacher_dims.n_mels, config.data, settings.seed, augments=True
    )
    train_step = PhasedStep(setup, plan, shardings, mesh)
    evaluate = make_evaluate(config, setup, models, data, mesh, score)
    metadata = {
        "train_data": fingerprint(data.train),
        "languages": languages(data.train),  # for the card of an export
    }
    is_first = jax.process_index() == 0

    with Checkpoints(run_dir / CHECKPOINTS, settings.keep_checkpoints) as checkpoints:
        restored = checkpoints.restore(shapes)
        if restored is None:
            state = first_state(config, load_student(), models.shares_encoder, plan, shardings)
            start = 0
        else:
            state, start = restored.state, restored.step
            if restored.metadata["train_data"] != metadata["train_data"]:
                raise InputError(
                    f"{run_dir} was trained on other data than {', '.join(config.data.train)} now "
                    "holds; use another --run-dir, or bring the data back"
                )
        batches = device_batches(
            schedule,
            data.train,
            data.load_inputs,
            featurise,
            mesh,
            end_of_text=data.end_of_text,
            start_step=start,
            threads=config.data.threads,
        )
        with (
            contextlib.closing(batches),
            MetricsLog(run_dir, start if restored else None) as log,
            stop_request() as stop,
            progress(len(schedule), "train", "steps", initial=start, shown=is_first) as advance,
        ):
            for line in restored.skipped if restored else ():
                advance.say(line)
            if start:
                advance.say(f"resumed from the checkpoint of step {start}")
            window = Window()
            # At the top of the loop: `state.step == step` updates are complete, `batch` is the
            # schedule's batch `step`, and `window` holds the metrics since the last row written.
            for step, batch in zip(range(start, len(schedule)), batches, strict=True):
                state, metrics = train_step(step, state, models.teacher_params, batch)
                window.add(metrics)
                done, is_last = step + 1, step + 1 == len(schedule)
                stops = stop.at(done)
                saves = _is_due(done, settings.save_every) or is_last or stops
                evaluates = _is_due(done, settings.eval_every) or is_last
                row: dict[str, float] = {}
                # A checkpoint ends a window of metrics, so that a resumed run logs the same rows
                # (but for the one that a stop adds), and what is saved was found finite.
                if _is_due(done, settings.log_every) or saves or evaluates:
                    row = window.reduce(done, settings.global_batch_size)
                    row |= evaluate(state) if evaluates else {}
                    log.write(done, row)
                if saves:
                    log.flush()
                    checkpoints.save(done, state, metadata)
                if row:
                    window.restart_clock()
                advance(1, **{name: row[name] for name in SHOWN if name in row})
                if stops and not is_last:
                    checkpoints.wait()
                    raise Interrupted(
                        f"stopped after step {done} of {len(schedule)}, which is saved; the same "
                        "command goes on from there"
                    )
    return state


def _is_due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0


class PhasedStep:
    """The compiled steps of a run, one a phase; jit adds one a label bucket."""

    def __init__(
        self, setup: StepConfig, plan: RunSchedule, shardings: TrainState, mesh: Mesh
    ) -> None:
        self._plan = plan
        self._make = lambda phase: jitted_step(setup, phase, plan, shardings, mesh)
        self.compiled: dict[Phase, TrainStep] = {}

    def __call__(
        self, step: int, state: TrainState, teacher_params: dict[str, Any], batch: Batch
    ) -> tuple[TrainState, Metrics]:
        """Makes the update after `step` completed ones; the state is donated."""
        phase = self._plan.phase(step)
        if phase not in self.compiled:
            self.compiled[phase] = self._make(phase)
        return self.compiled[phase](state, teacher_params, batch)


class Window:
    """The metrics since the last row that was written, and the time they took."""

    def __init__(self) -> None:
        self._metrics = Dispatched()
        self._since = time.perf_counter()

    def add(self, metrics: Metrics) -> None:
        """Adds a dispatched step; waits for the one before."""
        self._metrics.add(metrics)

    def restart_clock(self) -> None:
        """A window begins now: what passed since the last one was no training."""
        self._since = time.perf_counter()

    def reduce(self, done: int, global_batch_size: int) -> dict[str, float]:
        """The row of metrics of the steps since the last one, `done` completed; empties the window.

        Raises:
            TrainingError: loss or gradient norm is not finite.
        """
        count = len(self._metrics)
        row = self._metrics.reduce()
        seconds = (time.perf_counter() - self._since) / count
        for name in ("loss", "grad_norm"):
            if not math.isfinite(row[name]):
                raise TrainingError(
                    f"{name} is {row[name]} in steps {done - count + 1} to {done}; lower "
                    "optimizer.learning_rate or lengthen optimizer.warmup, and start anew in "
                    "another --run-dir"
                )
        return row | {"step_seconds": seconds, "samples_per_second": global_batch_size / seconds}
