"""The recipes are settings of one objective: schedules, weights and chunked loss together."""

import jax
import numpy as np
import pytest
from support import loss_batch

from fastwhisper_jax.losses.askd import Weights, askd_weights
from fastwhisper_jax.losses.schedules import constant_schedule, linear_schedule

# Distil-Whisper: 0.8 CE + 1.0 KL tau^2 with tau 2. The others: tau 1.
RECIPES = {
    "ce only": (constant_schedule(0.0), constant_schedule(0.0), 1.0, 1.0),
    "constant distillation": (constant_schedule(1.0), constant_schedule(0.0), 0.8, 2.0),
    "decay only": (linear_schedule(0.8, 0.0, 0, 20), constant_schedule(0.0), None, 1.0),
    "self only": (constant_schedule(0.0), linear_schedule(0.0, 0.5, 5, 10), None, 1.0),
    "askd": (linear_schedule(0.8, 0.1, 0, 20), linear_schedule(0.0, 0.5, 5, 10), None, 1.0),
}
WEIGHTS_BY_HAND = {
    "ce only": lambda s: (1.0, 0.0, 0.0),
    "constant distillation": lambda s: (0.8, 1.0, 0.0),
    "decay only": lambda s: (0.2 + 0.04 * s, 0.8 - 0.04 * s, 0.0),
    "self only": lambda s: (1 - 0.05 * max(s - 5, 0), 0.0, 0.05 * max(s - 5, 0)),
    "askd": lambda s: (
        0.2 + 0.035 * s - 0.05 * max(s - 5, 0),
        0.8 - 0.035 * s,
        0.05 * max(s - 5, 0),
    ),
}


@pytest.mark.parametrize("step", [0, 5, 12])
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_a_setting_of_the_weights(recipe, step):
    teacher, self_teacher, ce_weight, temperature = RECIPES[recipe]
    models, tokens = loss_batch.make_batch(2, 6, 8, 23)

    @jax.jit
    def loss(step):
        weights = askd_weights(step, teacher, self_teacher, ce_weight)
        return loss_batch.batch_sums(
            models, **tokens, weights=weights, temperature=temperature
        ).loss

    logits = [loss_batch.logits_of(factors) for factors in models]
    labels, zeros = np.asarray(tokens["labels"]), Weights(0.0, 0.0, 0.0)
    terms = loss_batch.reference(*logits, labels, zeros, temperature)
    c, a, m = WEIGHTS_BY_HAND[recipe](step)
    by_hand = c * terms.ce + a * terms.kl_teacher + m * terms.kl_self
    np.testing.assert_allclose(loss(step), np.sum(tokens["label_mask"] * by_hand), rtol=2e-6)
