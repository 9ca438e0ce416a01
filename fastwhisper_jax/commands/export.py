"""`fastwhisper export`: the student of a run as Hugging Face weights."""

from fastwhisper_jax import files
from fastwhisper_jax.arguments import ExportArguments
from fastwhisper_jax.distillation.chosen_weights import Choice
from fastwhisper_jax.distillation.export_run import export_run


def run(given: ExportArguments) -> list[str]:
    """Writes the student of a checkpoint, see `export_run`; returns lines for the user."""
    choice = Choice(given.step, given.best, given.ema)
    return export_run(files.path_of(given.run_dir), given.out, choice, given.dtype)
