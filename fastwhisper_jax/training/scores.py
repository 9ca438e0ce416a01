"""What a saved state scored on held-out data, as its checkpoint keeps it."""

import math
from collections.abc import Mapping
from typing import Any

import orbax.checkpoint as ocp

from fastwhisper_jax.files import Path

SCORES = "scores"


def finite_scores(scores: Mapping[str, Any]) -> dict[str, float]:
    """The scores that are numbers. What is not finite is no score."""
    return {name: float(score) for name, score in scores.items() if math.isfinite(score)}


def read_score(metadata_folder: Path, name: str | None) -> float | None:
    """Reads one score of a checkpoint; None if it is damaged or was saved without this score."""
    if name is None:
        return None
    try:
        return float(ocp.JsonCheckpointHandler().restore(metadata_folder)[SCORES][name])
    except (OSError, ValueError, KeyError, TypeError):
        return None
