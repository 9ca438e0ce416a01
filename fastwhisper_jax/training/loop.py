"""The run: batches in, updates, logs, evaluations and checkpoints out."""

import contextlib
import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from fastwhisper_jax.config import TrainingConfig
from fastwhisper_jax.data.schedule import BatchSchedule
from fastwhisper_jax.errors import InputError, Interrupted, TrainingError
from fastwhisper_jax.files import Path
from fastwhisper_jax.progress import progress
from fastwhisper_jax.training.checkpoints import Checkpoints
from fastwhisper_jax.training.input import device_batches
from fastwhisper_jax.training.interruption import stop_request
from fastwhisper_jax.training.metrics import DispatchedMetrics, MetricsLog
from fastwhisper_jax.training.state import TrainState, abstract_state, first_state
from fastwhisper_jax.training.step import StepConfig, TrainStep, jitted_step
from fastwhisper_jax.training.task import Batch, Metrics, Params, Phase, Task

CHECKPOINTS = "checkpoints"
SHOWN = ("loss", "eval_wer")


class Run(NamedTuple):
    """What a run trains with.

    Attributes:
        task: the models, the loss and the data, as functions.
        teacher_params: on the mesh.
        layouts: the layouts of all batches.
        step_config: what is static about an update.
        settings: how often to log, evaluate and save.
        metadata: kept with each checkpoint. A run goes on only with the same "train_data", and
            keeps a best checkpoint only with the same "eval_data".
        mesh: where to run.
        threads: background threads that make batches.
    """

    task: Task
    teacher_params: Params
    layouts: BatchSchedule
    step_config: StepConfig
    settings: TrainingConfig
    metadata: Mapping[str, Any]
    mesh: Mesh
    threads: int = 2


def train(run: Run, run_dir: Path) -> TrainState:
    """Trains a student to the end of its run, from the newest good checkpoint on if there is one.

    Args:
        run: what to train with.
        run_dir: gets metrics.jsonl, tensorboard/ and checkpoints/.

    Returns:
        The state after the last update.

    Raises:
        InputError: the run's checkpoints or data are not those of this run.
        TrainingError: the loss or the gradient is not finite.
        Interrupted: the run was asked to stop and has saved its state.
    """
    task, settings, total_steps = run.task, run.settings, len(run.layouts)
    shapes = abstract_state(task, run.step_config.optimizer, run.mesh)
    shardings = jax.tree.map(lambda x: x.sharding, shapes)
    train_step = PhasedStep(task, run.step_config, shardings)
    is_first = jax.process_index() == 0

    with Checkpoints(
        run_dir / CHECKPOINTS, settings.keep_checkpoints, settings.keep_best
    ) as checkpoints:
        restored = checkpoints.restore(shapes)
        if restored is None:
            state, start = first_state(task, run.step_config.optimizer, shardings), 0
        else:
            state, start = restored.state, restored.step
            if restored.metadata["train_data"] != run.metadata["train_data"]:
                raise InputError(
                    f"{run_dir} was trained on other data than data.train now holds; use another "
                    "--run-dir, or bring the data back"
                )
            scored_on = restored.metadata.get("eval_data")
            if settings.keep_best and scored_on not in (None, run.metadata.get("eval_data")):
                raise InputError(
                    f"{run_dir} has scores of other data than data.eval now holds, so its best "
                    "checkpoint cannot be told; bring the data back, or set training.keep_best to "
                    "none"
                )
        batches = device_batches(
            run.layouts,
            task.collate,
            task.featurise,
            run.mesh,
            start_step=start,
            threads=run.threads,
        )
        with (
            contextlib.closing(batches),
            MetricsLog(run_dir, start if restored else None) as log,
            stop_request() as stop,
            progress(total_steps, "train", "steps", initial=start, shown=is_first) as advance,
        ):
            for line in restored.skipped if restored else ():
                advance.write(line)
            if restored:
                advance.write(f"resumed from the checkpoint of step {start}")
            if settings.evaluate_at_start and restored is None:
                untrained = task.score(state, run.teacher_params)
                log.write(0, untrained)
                # It is saved, so that no resumed run evaluates it again.
                log.flush()
                checkpoints.save(0, state, run.metadata, untrained)
            interval = LogInterval()
            # At the top of the loop: `state.step == step` updates are complete, `batch` is the
            # run's batch `step`, and `interval` holds the metrics since the last row was written.
            for step, batch in zip(range(start, total_steps), batches, strict=True):
                state, metrics = train_step(step, state, run.teacher_params, batch)
                interval.add(metrics)
                done, is_last = step + 1, step + 1 == total_steps
                stops = stop.at(done)
                saves = _is_due(done, settings.save_every) or is_last or stops
                evaluates = _is_due(done, settings.eval_every) or is_last
                row: dict[str, float] = {}
                scores: dict[str, float] = {}
                # A checkpoint ends an interval, so that a resumed run logs the same rows (except
                # the one that a stop adds), and a state is saved only after its loss was found
                # finite.
                if _is_due(done, settings.log_every) or saves or evaluates:
                    row = interval.reduce(done, settings.global_batch_size)
                    if evaluates:
                        scores = task.score(state, run.teacher_params)
                        saves = saves or checkpoints.is_best(done, scores)
                    row |= scores
                    log.write(done, row)
                if saves:
                    log.flush()
                    checkpoints.save(done, state, run.metadata, scores)
                if row:
                    interval.restart_timer()
                advance(1, **{name: row[name] for name in row if name.split("/")[-1] in SHOWN})
                if stops and not is_last:
                    checkpoints.wait()
                    raise Interrupted(
                        f"stopped after step {done} of {total_steps}, which is saved; the same "
                        "command goes on from there"
                    )
    return state


def _is_due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0


class PhasedStep:
    """The compiled steps of a run, one a phase; `jax.jit` adds one a window and label bucket."""

    def __init__(self, task: Task, config: StepConfig, shardings: TrainState) -> None:
        self._phase_at = task.phase_at
        self._make = lambda phase: jitted_step(task, phase, config, shardings)
        self.compiled: dict[Phase, TrainStep] = {}

    def __call__(
        self, step: int, state: TrainState, teacher_params: Params, batch: Batch
    ) -> tuple[TrainState, Metrics]:
        """Makes the update after `step` completed ones; the state is donated."""
        phase = self._phase_at(step)
        if phase not in self.compiled:
            self.compiled[phase] = self._make(phase)
        return self.compiled[phase](state, teacher_params, batch)


class LogInterval:
    """The metrics since the last row that was written, and how long those updates took."""

    def __init__(self) -> None:
        self._metrics = DispatchedMetrics()
        self._since = time.perf_counter()

    def add(self, metrics: Metrics) -> None:
        """Adds a dispatched step; waits for the one before."""
        self._metrics.add(metrics)

    def restart_timer(self) -> None:
        """Restarts the timer, so that evaluation and saving do not count as training time."""
        self._since = time.perf_counter()

    def reduce(self, done: int, global_batch_size: int) -> dict[str, float]:
        """The row of metrics since the last row, with `done` updates completed; starts anew.

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
