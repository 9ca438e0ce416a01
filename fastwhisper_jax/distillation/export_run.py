"""The student of a run's checkpoint as Hugging Face weights, and what its model card says."""

import json
from collections.abc import Collection
from pathlib import Path

import jax
import yaml
from huggingface_hub.repocard import metadata_load

from fastwhisper_jax import files
from fastwhisper_jax.config import Config, ObjectiveConfig, OptimizerConfig, ScheduleConfig
from fastwhisper_jax.config.eval_sets import EMA
from fastwhisper_jax.distillation.chosen_weights import (
    NEWEST,
    Choice,
    best_step,
    trained_params,
)
from fastwhisper_jax.distillation.eval_metrics import named_metrics
from fastwhisper_jax.distillation.pair import LoadedPair, load_pair, place_params
from fastwhisper_jax.distillation.run_directory import check_writable, read_config
from fastwhisper_jax.distillation.run_schedule import make_run_schedule
from fastwhisper_jax.distillation.sums import whole_student
from fastwhisper_jax.distillation.task import make_task
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.export.hf_export import check_target, export_student
from fastwhisper_jax.export.model_card import CardFacts, CardScore, OtherTeacher
from fastwhisper_jax.training.checkpoints import Checkpoints, Restored
from fastwhisper_jax.training.loop import CHECKPOINTS
from fastwhisper_jax.training.metrics_files import read_lines
from fastwhisper_jax.training.named_leaves import holds_field
from fastwhisper_jax.training.sharding import make_mesh
from fastwhisper_jax.training.state import TrainState, abstract_state


def export_run(
    run_dir: files.Path, target: Path, choice: Choice = NEWEST, dtype: str = "float32"
) -> list[str]:
    """Writes the student of a checkpoint, or its EMA.

    Args:
        run_dir: the run's directory.
        target: folder to write.
        choice: which checkpoint, and which of its weights.
        dtype: dtype of the weights: float32, bfloat16 or float16.

    Returns:
        Lines for the user: what was written, and what other programs cannot do with it.

    Raises:
        InputError: no run, no such checkpoint or weights, the target cannot be written, or a
            parameter is too large for the dtype.
    """
    config = read_config(run_dir)
    choice, keep_best = choice.of_run(run_dir, config), config.training.keep_best
    check_writable("--out", files.path_of(target))
    if target.exists():
        check_target(target)  # it makes missing folders, so it is not called for a new target
    pair = load_pair(config)
    mesh = make_mesh(1, 1, devices=jax.local_devices()[:1])

    def abstract(names: Collection[str]) -> TrainState:
        # Only one thing about the state follows from the schedules: whether it has a self teacher.
        self_weight = float(holds_field("self_teacher_params", names))
        objective = ObjectiveConfig(self_weight=ScheduleConfig(init_value=self_weight))
        schedule = make_run_schedule(objective, OptimizerConfig(), total_steps=1)
        task = make_task(config, pair.shapes, schedule, mesh, load_student=dict)
        return abstract_state(task, schedule.optimizer, mesh)

    step, skipped = choice.step, tuple[str, ...]()
    with Checkpoints(run_dir / CHECKPOINTS, keep_best=keep_best) as checkpoints:
        if choice.best:
            step, skipped = best_step(checkpoints, keep_best)
        restored = checkpoints.restore(abstract, step)
    if restored is None:
        raise InputError(
            f"{run_dir} has no complete checkpoint yet; train until the first is saved"
        )
    state, student = restored.state, pair.student
    teacher_params = place_params(pair.teacher.params, "float32", mesh)
    params = whole_student(
        trained_params(run_dir, restored, choice.ema),
        state.frozen_params,
        teacher_params,
        student.shares_encoder,
    )
    facts = card_facts(run_dir, config, pair, restored, choice)
    notes = export_student(target, student.dims, jax.device_get(params), pair.origin, facts, dtype)
    whose = "the EMA of " if choice.ema else ""
    exported = f"exported {whose}step {restored.step} of {run_dir} to {target}"
    if choice.best:
        exported += f"; it has the lowest {keep_best}"
    return [*skipped, *restored.skipped, exported, *notes]


def card_facts(
    run_dir: files.Path,
    config: Config,
    pair: LoadedPair,
    restored: Restored,
    choice: Choice = NEWEST,
) -> CardFacts:
    """Collects what the model card says of a run's student.

    Args:
        run_dir: the run's directory.
        config: the run's config.
        pair: its teacher and student.
        restored: the checkpoint. Old checkpoints name no languages.
        choice: how the checkpoint and its weights were chosen.
    """
    return CardFacts(
        base_model=_public_name(config.student.path or config.teacher.path),
        encoder_layers=pair.student.encoder_layers,
        decoder_layers=pair.student.decoder_layers,
        windows=pair.student.windows,
        languages=tuple(restored.metadata.get("languages", ())),
        license=_license(pair.origin),
        training=_training(config, restored.step) + _chosen(config, choice),
        scores=_scores(run_dir, config, restored.step, EMA if choice.ema else ""),
        trained_with_timestamps=config.data.timestamp_probability > 0,
        other_teacher=_other_teacher(config, pair),
    )


def _public_name(path_or_hub_id: str) -> str:
    """Returns a hub id unchanged, and the name of a folder without its path."""
    path = Path(path_or_hub_id)
    return path.name if path.is_dir() else path_or_hub_id


def _other_teacher(config: Config, pair: LoadedPair) -> OtherTeacher | None:
    """Returns the teacher if the student was initialised from another model."""
    if pair.origin == pair.teacher.folder:
        return None
    name = _public_name(config.teacher.path)
    return OtherTeacher(name, pair.teacher.dims, _license(pair.teacher.folder))


def _license(folder: Path) -> str | None:
    """Returns the licence that a folder's model card names; None if it names none."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    try:
        named = (metadata_load(card) or {}).get("license")
    except (ValueError, yaml.YAMLError):
        return None  # the hub could not read this card either
    return named if isinstance(named, str) and named != "unknown" else None


def _training(config: Config, step: int) -> str:
    objective = config.objective
    names = ", ".join(Path(source).name for source in config.data.train)
    hidden = objective.hidden_weight
    hidden_states = "" if hidden.is_zero else f", weight of hidden states {_curve(hidden)}"
    return (
        f"Trained with fastwhisper-jax for {step} updates of {config.training.global_batch_size} "
        f"utterances on {names}: teacher weight {_curve(objective.teacher_weight)}, self weight "
        f"{_curve(objective.self_weight)}, cross-entropy weight "
        f"{'the complement' if objective.ce_weight is None else objective.ce_weight}, temperature "
        f"{objective.temperature}{hidden_states}; learning rate "
        f"{config.optimizer.learning_rate}, dropout {config.student.dropout}, frozen: "
        f"{', '.join(config.student.frozen) or 'nothing'}."
    )


def _chosen(config: Config, choice: Choice) -> str:
    """Says which weights of the run these are, where they are not simply its student's."""
    text = ""
    if choice.ema:
        decay = config.objective.ema_decay
        text += f" The weights are the student's exponential moving average (decay {decay})."
    if choice.best:
        text += (
            f" Of the run's checkpoints, this one has the lowest {config.training.keep_best}. Its"
            " figures on the data of that choice are optimistic."
        )
    return text


def _curve(schedule: ScheduleConfig) -> str:
    kind, first = schedule.kind, schedule.init_value
    if kind == "constant":
        return f"{first}"
    if kind == "piecewise":
        return f"{[first, *schedule.values]}"
    return f"{kind} from {first} to {schedule.end_value}"


def _scores(run_dir: files.Path, config: Config, step: int, whose: str) -> tuple[CardScore, ...]:
    """The error rates that the run measured at this step, of the student ("") or of its EMA."""
    rows = {number: json.loads(line) for number, line in read_lines(run_dir)}
    row, scores = rows.get(step, {}), []
    for name, paths in config.data.eval_sets.items():
        (metric,) = named_metrics(whose, named_metrics(name, {"eval_wer": 0.0}))
        if metric in row:
            data = ", ".join(Path(path).parent.name + "/" + Path(path).stem for path in paths)
            data = f"{name}: {data}" if name else data
            scores.append(CardScore(data, "the run's own", student_wer=row[metric]))
    return tuple(scores)
