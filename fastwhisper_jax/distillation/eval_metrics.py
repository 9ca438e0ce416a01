"""The metrics of a run's eval sets by name, and what a recipe asks of them."""

from collections.abc import Mapping

from fastwhisper_jax.config import Config
from fastwhisper_jax.config.eval_sets import EMA
from fastwhisper_jax.distillation.run_schedule import RunSchedule
from fastwhisper_jax.errors import InputError

# What `training.keep_best` may name, of any eval set: the lower, the better.
ERRORS = ("eval_ce", "eval_wer", "eval_cer")


def named_metrics(name: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics as they are logged: those of a set without a name ("") keep their own names."""
    return {f"{name}/{metric}" if name else metric: value for metric, value in metrics.items()}


def is_of_ema(metric: str | None) -> bool:
    """Whether a logged metric is that of the student's EMA, and not of the student."""
    return metric is not None and metric.startswith(f"{EMA}/")


def check_evaluation(config: Config, schedule: RunSchedule) -> None:
    """Checks that a run can evaluate what its recipe asks for, and logs what it keeps the best by.

    Raises:
        InputError: there is no eval set to evaluate on, no EMA to evaluate, or no such metric.
    """
    settings, objective = config.training, config.objective
    asked = [
        f"training.{name}={value!r}"
        for name in ("keep_best", "evaluate_at_start", "evaluate_ema")
        if (value := getattr(settings, name)) not in (None, False)
    ]
    if asked and not config.data.eval:
        raise InputError(f"{asked[0]} needs data to evaluate on; give --data.eval MANIFEST")
    if settings.evaluate_ema and objective.self_teacher != "ema":
        raise InputError(
            "training.evaluate_ema needs a self teacher that is an EMA, but "
            f"objective.self_teacher={objective.self_teacher!r}; choose ema, or do not evaluate it"
        )
    if settings.evaluate_ema and not schedule.keeps_self_teacher:
        raise InputError(
            "training.evaluate_ema needs a self teacher, but objective.self_weight is 0 in every "
            "update of this run; raise it, or do not evaluate the EMA"
        )
    metrics = [*_errors(config, ""), *(_errors(config, EMA) if settings.evaluate_ema else ())]
    if settings.keep_best is not None and settings.keep_best not in metrics:
        needs_ema = is_of_ema(settings.keep_best) and not settings.evaluate_ema
        hint = f"; those of {EMA}/ need training.evaluate_ema" if needs_ema else ""
        raise InputError(
            f"training.keep_best={settings.keep_best!r} is no error or loss that this run measures "
            f"on an eval set; choose one of {', '.join(metrics)}{hint}"
        )


def _errors(config: Config, whose: str) -> list[str]:
    """The errors that are logged of the student (""), or of its EMA."""
    zeros = dict.fromkeys(ERRORS, 0.0)
    sets = (named_metrics(name, zeros) for name in config.data.eval_sets)
    return [metric for metrics in sets for metric in named_metrics(whose, metrics)]
