"""Which weights of a run are exported: of which checkpoint, and the student's or its EMA's."""

import json
from typing import NamedTuple

from fastwhisper_jax.config import Config
from fastwhisper_jax.distillation.eval_metrics import is_of_ema
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.files import Path
from fastwhisper_jax.training.checkpoints import Checkpoints, Restored
from fastwhisper_jax.training.metrics_files import read_lines
from fastwhisper_jax.training.task import Params


class Choice(NamedTuple):
    """What the user asks for.

    Attributes:
        step: which checkpoint; None for the newest good one.
        best: the best checkpoint by `training.keep_best` instead, and the weights of that metric:
            the EMA's if it begins with "ema/", else the student's.
        ema: the EMA of the student instead of the student.
    """

    step: int | None = None
    best: bool = False
    ema: bool = False

    def of_run(self, run_dir: Path, config: Config) -> "Choice":
        """The choice with what the run's config says of it, before anything is read.

        Raises:
            InputError: the run keeps no best checkpoint, or no EMA.
        """
        keep_best, objective = config.training.keep_best, config.objective
        if self.best and keep_best is None:
            raise InputError(
                f"{run_dir} keeps no best checkpoint: its training.keep_best is none; export "
                "without --best, or set it before training"
            )
        ema = self.ema or (self.best and is_of_ema(keep_best))
        if ema and objective.self_teacher != "ema":
            raise InputError(
                f"{run_dir} keeps no EMA: its objective.self_teacher is "
                f"{objective.self_teacher!r}; export without --ema"
            )
        return self._replace(ema=ema)


NEWEST = Choice()


def best_step(checkpoints: Checkpoints, keep_best: str | None) -> tuple[int, tuple[str, ...]]:
    """The step of a run's best checkpoint, and a line for each better one that is damaged.

    Raises:
        InputError: no good checkpoint was scored.
    """
    step, skipped = checkpoints.best_good_step()
    if step is None:
        reasons = "".join(f"; {line}" for line in skipped)
        raise InputError(
            f"{checkpoints.directory} has no checkpoint that was scored by {keep_best}{reasons}; "
            "train until the next evaluation, or export without --best"
        )
    return step, skipped


def trained_params(run_dir: Path, restored: Restored, ema: bool) -> Params:
    """The student's trained parameters, or their EMA.

    Raises:
        InputError: the run keeps no EMA, or it has not begun at this step.
    """
    params: Params | None = restored.state.params
    if not ema:
        assert params is not None
        return params
    params = restored.state.self_teacher_params
    if params is None:
        raise InputError(
            f"{run_dir} keeps no EMA: its objective.self_weight is 0 in every update; export "
            "without --ema"
        )
    # Until its phase begins, the state holds the student before its first update in its place.
    rows = [json.loads(line) for step, line in read_lines(run_dir) if step <= restored.step]
    if all(row.get("kl_self") is None for row in rows):
        raise InputError(
            f"the EMA of {run_dir} has not begun at step {restored.step}, as its metrics say; "
            "export a later step, or without --ema"
        )
    return params
