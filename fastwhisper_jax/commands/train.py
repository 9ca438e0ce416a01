"""`fastwhisper train`: distils a student by a recipe, or goes on where the run stopped."""

from collections.abc import Callable

import jax

from fastwhisper_jax.config import Config
from fastwhisper_jax.distillation.run import prepare_run
from fastwhisper_jax.distillation.run_directory import resolved
from fastwhisper_jax.files import Path
from fastwhisper_jax.training import loop

Log = Callable[[str], None]


def run(config: Config, run_dir: Path, log: Log) -> None:
    """Trains the student of a recipe, from the beginning or from the run's newest checkpoint.

    Args:
        config: recipe and overrides.
        run_dir: of this run and no other.
        log: prints a line for the user; process 0 alone calls it.

    Raises:
        InputError: whatever of the input cannot be used, before anything is written.
    """
    if jax.process_index() != 0:
        log = _log_nothing
    loop.train(prepare_run(resolved(config), run_dir, log), run_dir)
    best = " --best" if config.training.keep_best is not None else ""
    log(f"done; export the student with: fastwhisper export {run_dir}{best} --out DIR")


def _log_nothing(line: str) -> None:
    pass
