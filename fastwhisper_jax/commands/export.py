"""`fastwhisper export`: the student of a run as Hugging Face weights."""

from pathlib import Path

from fastwhisper_jax import files
from fastwhisper_jax.distillation.export_run import export_run


def run(run_dir: files.Path, target: Path, step: int | None, dtype: str = "float32") -> list[str]:
    """Writes the student of a checkpoint, see `export_run`; returns lines for the user."""
    return export_run(run_dir, target, step, dtype)
