"""AdamW with clipping, and its learning rate by completed updates."""

from typing import Any

import jax
import optax

NOT_DECAYED = ("bias", "scale", "positions")


def learning_rate_schedule(
    learning_rate: float, end_learning_rate: float, warmup_steps: int, decay: str, total_steps: int
) -> optax.Schedule:
    """Linear warm-up, then a decay that would reach `end_learning_rate` at step `total_steps`.

    After s completed updates the next one uses

        learning_rate · (s + 1) / (warmup_steps + 1)                      s < warmup_steps
        decay from learning_rate to end_learning_rate over the rest       s >= warmup_steps

    so that no update has rate 0, not even the first.

    Args:
        learning_rate: the peak, reached at s = warmup_steps.
        end_learning_rate: the value at which linear and cosine decay end.
        warmup_steps: updates before the peak.
        decay: "constant", "linear" or "cosine".
        total_steps: updates of the whole run.
    """
    rest = max(total_steps - warmup_steps, 1)
    curves = {
        "constant": optax.constant_schedule(learning_rate),
        "linear": optax.linear_schedule(learning_rate, end_learning_rate, rest),
        "cosine": optax.cosine_decay_schedule(
            learning_rate, rest, alpha=end_learning_rate / learning_rate
        ),
    }
    first = learning_rate / (warmup_steps + 1)
    warmup = optax.linear_schedule(first, learning_rate, max(warmup_steps, 1))
    return optax.join_schedules([warmup, curves[decay]], [warmup_steps])


def make_optimizer(
    schedule: optax.Schedule,
    *,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
    clip_norm: float,
) -> optax.GradientTransformation:
    """Clips by the global norm, then applies AdamW. Biases, norms and positions do not decay."""
    return optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.adamw(
            schedule,
            b1=beta1,
            b2=beta2,
            eps=epsilon,
            weight_decay=weight_decay,
            mask=decayed,
        ),
    )


def decayed(params: Any) -> Any:
    """Returns a tree of bools: whether weight decay applies to each leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in NOT_DECAYED, params)
