"""No two uses of chance of a run draw from one key."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import tiny_run as tiny

from fastwhisper_jax.config import DataConfig
from fastwhisper_jax.distillation import featurise as featurising
from fastwhisper_jax.training import step
from fastwhisper_jax.training.random_keys import DROPOUT, SPEC_AUGMENT, step_key
from fastwhisper_jax.training.state import init_state
from fastwhisper_jax.training.task import Phase, Task

SEED, STEP = 3, 5


class Drawn(Exception):
    """Holds the key that was about to be used."""


def key_of_masks(monkeypatch):
    def draw(log_mel, key, **_):
        raise Drawn(key)

    monkeypatch.setattr(featurising, "spec_augment", draw)
    featurise = featurising.make_featurise(8, DataConfig(time_masks=1), SEED, augments=True)
    batch = {"audio": jnp.zeros((1, tiny.TEACHER.n_samples)), "frames": jnp.ones(1, jnp.int32)}
    with jax.disable_jit(), pytest.raises(Drawn) as drawn:
        featurise(batch, STEP)
    return drawn.value.args[0]


def key_of_dropout():
    def draw(params, frozen, teacher, self_teacher, batch, weights, key, phase):
        raise Drawn(key)

    functions = dict.fromkeys(Task._fields) | {
        "sums": draw,
        "weights_at": lambda step: None,
        "target_count": lambda batch: jnp.ones(()),
    }
    config = step.StepConfig(optax.sgd(1.0), optax.constant_schedule(1.0), seed=SEED)
    train_step = step.make_train_step(Task(**functions), Phase(False, False), config)
    state = init_state({"leaf": jnp.zeros(1)}, {}, config.optimizer, keeps_self_teacher=False)
    with pytest.raises(Drawn) as drawn:
        train_step(dataclasses.replace(state, step=STEP), {}, {})
    return drawn.value.args[0]


def test_masks_and_dropout_of_an_update_draw_from_keys_of_their_own(monkeypatch):
    masks, dropout = key_of_masks(monkeypatch), key_of_dropout()
    assert masks == step_key(SEED, SPEC_AUGMENT, STEP)
    assert dropout == step_key(SEED, DROPOUT, STEP)
    assert masks != dropout


def test_every_seed_purpose_and_step_has_a_key_of_its_own():
    chosen = itertools.product((0, 1), (SPEC_AUGMENT, DROPOUT), (0, 1, 2))
    keys = [tuple(np.asarray(jax.random.key_data(step_key(*each)))) for each in chosen]
    assert len(set(keys)) == len(keys)
