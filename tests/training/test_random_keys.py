"""No two uses of chance of a run draw from one key."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import tiny_run as tiny

from fastwhisper_jax.config import DataConfig
from fastwhisper_jax.losses.askd import Weights
from fastwhisper_jax.training import input as feeding
from fastwhisper_jax.training import step
from fastwhisper_jax.training.random_keys import DROPOUT, SPEC_AUGMENT, step_key
from fastwhisper_jax.training.sharding import make_mesh
from fastwhisper_jax.training.state import init_state

SEED, STEP = 3, 5


class Drawn(Exception):
    """Holds the key that was about to be used."""


def key_of_masks(monkeypatch):
    def draw(log_mel, key, **_):
        raise Drawn(key)

    monkeypatch.setattr(feeding, "spec_augment", draw)
    featurise = feeding.make_featurise(8, DataConfig(time_masks=1), SEED, augments=True)
    batch = {"audio": jnp.zeros((1, tiny.TEACHER.n_samples)), "frames": jnp.ones(1, jnp.int32)}
    with pytest.raises(Drawn) as drawn:
        featurise.__wrapped__(batch, STEP)
    return drawn.value.args[0]


def key_of_dropout(monkeypatch):
    def draw(*arguments):
        (key,) = (x for x in arguments if getattr(x, "dtype", None) == jax.random.key(0).dtype)
        raise Drawn(key)

    monkeypatch.setattr(step, "_sums", draw)
    optimizer = optax.sgd(1.0)
    train_step = step.make_train_step(
        step.StepConfig(tiny.TEACHER, tiny.STUDENT, chunk_tokens=8, seed=SEED),
        step.Phase(runs_teacher=False, runs_self_teacher=False),
        lambda _: Weights(1.0, 0.0, 0.0),
        optax.constant_schedule(1.0),
        optimizer,
        make_mesh(1, 1, devices=jax.devices()[:1]),
    )
    state = init_state({"leaf": jnp.zeros(1)}, {}, optimizer, keeps_self_teacher=False)
    with pytest.raises(Drawn) as drawn:
        train_step(state.replace(step=STEP), {}, {"label_mask": jnp.ones((1, 1))})
    return drawn.value.args[0]


def test_masks_and_dropout_of_an_update_draw_from_keys_of_their_own(monkeypatch):
    masks, dropout = key_of_masks(monkeypatch), key_of_dropout(monkeypatch)
    assert masks == step_key(SEED, SPEC_AUGMENT, STEP)
    assert dropout == step_key(SEED, DROPOUT, STEP)
    assert masks != dropout


def test_every_seed_purpose_and_step_has_a_key_of_its_own():
    chosen = itertools.product((0, 1), (SPEC_AUGMENT, DROPOUT), (0, 1, 2))
    keys = [tuple(np.asarray(jax.random.key_data(step_key(*each)))) for each in chosen]
    assert len(set(keys)) == len(keys)
