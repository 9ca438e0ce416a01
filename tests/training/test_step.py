"""The train step: one update on any mesh, in any number of micro-batches, for no frozen leaf."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.dimensions import ModelDimensions, ModelOptions
from fastwhisper_jax.models.student import student_params
from fastwhisper_jax.objectives.askd import Weights
from fastwhisper_jax.objectives.chunked import distillation_sums
from fastwhisper_jax.training.optimizer import make_optimizer
from fastwhisper_jax.training.sharding import make_mesh, model_options, put_batch, tree_shardings
from fastwhisper_jax.training.state import init_state, merge_params, split_params
from fastwhisper_jax.training.step import (
    Distillation,
    Phase,
    make_eval_step,
    make_train_step,
)

pytestmark = pytest.mark.usefixtures("compile_quickly")

BEGIN, UPDATES, ROWS, LENGTH = 2, 5, 8, 10
BOTH = Phase(runs_teacher=True, runs_self=True)
FLOAT32 = ModelOptions()

# c, a, m after s completed updates: all three, the labels alone, the teacher, the self teacher.
TABLE = [(9.0, 9.0, 9.0)] * BEGIN + [(0.8, 1.0, 0.3), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)]
TABLE += [(0.0, 0.0, 1.0), (0.5, 0.2, 0.7)]


def weights_at(step):
    return Weights(*jnp.asarray(TABLE, jnp.float32)[step])


@pytest.fixture(scope="module")
def teacher(tiny):
    return tiny.random_params(tiny.TEACHER)


@pytest.fixture(scope="module")
def batches(tiny):
    """One batch of 8 rows an update; the last row of each has no target at all."""

    def draw(seed):
        generator = np.random.default_rng(seed)
        shape = (ROWS, LENGTH)
        log_mel = generator.normal(size=(ROWS, tiny.TEACHER.n_frames, tiny.TEACHER.n_mels))
        mask = generator.random(shape) < 0.7
        mask[-1] = False
        return {
            "log_mel": log_mel.astype(np.float32),
            "input_ids": generator.integers(0, tiny.TEACHER.n_vocab, shape).astype(np.int32),
            "labels": generator.integers(0, tiny.TEACHER.n_vocab, shape).astype(np.int32),
            "label_mask": mask.astype(np.float32),
        }

    return [draw(seed) for seed in range(UPDATES)]


@pytest.fixture(scope="module")
def wide_batches(batches):
    """Of 16 rows: two micro-batches for each of eight devices."""
    pairs = zip(batches, batches[1:] + batches[:1], strict=True)
    return [{name: np.concatenate([x[name], y[name]]) for name in x} for x, y in pairs]


def remembering(optimizer):
    """The optimiser, whose state also holds the gradient of the update that it has just made."""
    return optax.chain(
        optax.GradientTransformation(
            lambda params: jax.tree.map(jnp.zeros_like, params),
            lambda grads, _, params: (grads, grads),
        ),
        optimizer,
    )


OPTIMIZER = remembering(
    make_optimizer(
        lambda step: 1e-2,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-8,
        weight_decay=0.5,
        clip_norm=1.0,
    )
)


class Trainer:
    """A compiled step with what it starts from; keeps host copies, for states are donated."""

    def __init__(self, setup, teacher, frozen, shape=(1, 1), phase=BOTH):
        self.mesh = make_mesh(*shape, devices=jax.devices()[: shape[0] * shape[1]])
        given = setup.student_options
        setup = dataclasses.replace(
            setup,
            teacher_options=model_options(self.mesh, "float32"),
            student_options=model_options(self.mesh, "float32", given.rematerialise, given.dropout),
        )
        layers = range(setup.student_dims.n_audio_layer), (0, setup.teacher_dims.n_text_layer - 1)
        self.student = student_params(teacher, setup.student_dims, *map(tuple, layers))
        params, frozen_params = split_params(self.student, frozen)
        if setup.shares_encoder:
            frozen_params.pop("encoder")
        state = jax.tree.map(np.asarray, init_state(params, frozen_params, OPTIMIZER, True))
        # Training is at step BEGIN already, and the earlier self holds what must not be used.
        garbage = jax.tree.map(lambda x: np.full_like(x, 7.0), state.self_params)
        self.first = state.replace(step=np.int32(BEGIN), self_params=garbage)
        self.shardings = tree_shardings(state, self.mesh)
        self.teacher = jax.device_put(teacher, tree_shardings(teacher, self.mesh))
        self.step = jax.jit(
            make_train_step(setup, phase, weights_at, lambda step: 1e-2, OPTIMIZER, self.mesh),
            donate_argnums=0,
            out_shardings=(self.shardings, None),
        )

    def update(self, state, batch):
        """One update of a host state."""
        placed = jax.device_put(state, self.shardings)
        return jax.device_get(self.step(placed, self.teacher, put_batch(batch, self.mesh)))

    def run(self, batches):
        """(states, metrics): the first state and the one after each batch; metrics as means."""
        states, rows = [self.first], []
        state = jax.device_put(self.first, self.shardings)
        for batch in batches:
            state, metrics = self.step(state, self.teacher, put_batch(batch, self.mesh))
            states.append(jax.device_get(state))
            rows.append({n: float(total / count) for n, (total, count) in metrics.items()})
        return states, rows


def gradient(state):
    return state.opt_state[0]


def assert_trees_close(ours, theirs, relative):
    """Every leaf within `relative` of its own largest value."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    with_paths = jax.tree_util.tree_flatten_with_path(theirs)[0]
    for ours_leaf, (path, leaf) in zip(jax.tree.leaves(ours), with_paths, strict=True):
        apart, largest = np.abs(ours_leaf - leaf).max(), np.abs(leaf).max()
        assert apart <= relative * largest, f"{path}: {apart} of {largest}"


def assert_same_bits(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.fixture(scope="module")
def shared(tiny):
    """The recipes' setting: the teacher's encoder, frozen, serves both; the earlier self an EMA."""
    return Distillation(
        tiny.TEACHER,
        tiny.STUDENT,
        temperature=2.0,
        self_begin=BEGIN,
        ema_decay=0.9,
        chunk_tokens=16,
    )


@pytest.fixture(scope="module")
def own(tiny):
    """Everything else: an encoder of its own, trained, of a shorter context; dropout, the gate, a
    snapshot as earlier self, two micro-batches, recomputed layers."""
    short = ModelDimensions(**vars(tiny.STUDENT) | {"n_audio_ctx": 30, "n_audio_layer": 1})
    return Distillation(
        tiny.TEACHER,
        short,
        student_options=ModelOptions(dropout=0.2, rematerialise=True),
        shares_encoder=False,
        adaptive=True,
        self_begin=BEGIN,
        ema_decay=None,
        snapshot_steps=2,
        accumulation_steps=2,
    )


FROZEN = {"shared": ("encoder", "decoder/embed_tokens"), "own": ("encoder/conv1", "decoder/norm")}


@pytest.fixture(scope="module")
def shared_trainer(shared, teacher):
    return Trainer(shared, teacher, FROZEN["shared"])


@pytest.fixture(scope="module")
def own_trainer(own, teacher):
    return Trainer(own, teacher, FROZEN["own"])


@pytest.fixture(scope="module")
def shared_run(shared_trainer, batches):
    return shared_trainer.run(batches)


@pytest.fixture(scope="module")
def own_run(own_trainer, wide_batches):
    return own_trainer.run(wide_batches)


@pytest.fixture(params=["shared", "own"])
def case(request):
    """The trainer of one device, and its run."""
    return tuple(request.getfixturevalue(f"{request.param}_{name}") for name in ("trainer", "run"))


@pytest.mark.parametrize(
    "name, shape, rows", [("shared", (8, 1), "batches"), ("own", (4, 2), "wide_batches")]
)
def test_one_device_and_eight_make_the_same_updates(name, shape, rows, teacher, request):
    states, rows_of_one = request.getfixturevalue(f"{name}_run")
    eight = Trainer(request.getfixturevalue(name), teacher, FROZEN[name], shape)
    their_states, their_rows = eight.run(request.getfixturevalue(rows))
    for ours, theirs in zip(their_rows, rows_of_one, strict=True):
        for metric in ("loss", "ce", "kl_teacher", "kl_self"):
            np.testing.assert_allclose(ours[metric], theirs[metric], rtol=1e-5, atol=1e-5)
    assert_trees_close(gradient(their_states[1]), gradient(states[1]), 1e-5)
    assert_trees_close(their_states[-1].params, states[-1].params, 1e-3)
    assert eight.step._cache_size() == 1


def test_accumulated_gradients_equal_those_of_the_whole_batch(shared, teacher, batches, shared_run):
    (before, after, *_), (row, *_) = shared_run
    in_parts = Trainer(dataclasses.replace(shared, accumulation_steps=4), teacher, FROZEN["shared"])
    state, metrics = in_parts.update(before, batches[0])
    assert_trees_close(gradient(state), gradient(after), 1e-5)
    for name in ("loss", "ce", "kl_teacher", "kl_self", "accuracy", "grad_norm"):
        total, count = metrics[name]
        np.testing.assert_allclose(total / count, row[name], rtol=1e-5, atol=1e-6)


def test_frozen_leaves_keep_their_bits_under_weight_decay(case):
    trainer, (states, _) = case
    for state in states[1:]:
        assert_same_bits(state.frozen_params, trainer.first.frozen_params)
    moved = jax.tree.map(lambda x, y: (x != y).any(), states[-1].params, trainer.first.params)
    assert all(jax.tree.leaves(moved))


def test_the_optimiser_holds_nothing_for_frozen_leaves(case):
    trainer, (states, _) = case
    frozen = jax.tree_util.tree_flatten_with_path(trainer.first.frozen_params)[0]
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in frozen]
    held = jax.tree_util.tree_flatten_with_path((states[-1].opt_state, states[-1].self_params))[0]
    held = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in held]
    assert names and held
    assert not [h for h in held for name in names if h.endswith("/" + name)]


def test_the_teacher_is_left_as_it_was(case, teacher):
    trainer, _ = case
    assert_same_bits(jax.device_get(trainer.teacher), teacher)


def test_the_gradient_is_the_objectives_and_the_teacher_gets_none(
    tiny, shared, teacher, batches, shared_trainer, shared_run
):
    """Differentiated through the models, by the student's parameters and by the teacher's."""
    batch = batches[0]
    count = batch["label_mask"].sum()
    frozen = shared_trainer.first.frozen_params

    @jax.jit
    def gradients(trained, teacher):
        hidden = whisper.encode(teacher, tiny.TEACHER, batch["log_mel"], FLOAT32)
        hidden = jax.lax.stop_gradient(hidden)

        def loss(trained, teacher):
            tokens = batch["input_ids"]
            student = merge_params(trained, frozen)
            states = whisper.decode(student, tiny.STUDENT, tokens, hidden, FLOAT32)
            teacher_states = whisper.decode(teacher, tiny.TEACHER, tokens, hidden, FLOAT32)
            embedding, teacher_embedding = (
                p["decoder"]["embed_tokens"] for p in (student, teacher)
            )
            return (
                distillation_sums(
                    states,
                    embedding,
                    teacher_states,
                    teacher_embedding,
                    states,
                    embedding,
                    batch["labels"],
                    batch["label_mask"],
                    weights_at(BEGIN),
                    temperature=2.0,
                ).loss
                / count
            )

        return jax.grad(loss, argnums=(0, 1))(trained, teacher)

    by_student, by_teacher = gradients(shared_trainer.first.params, teacher)
    assert_trees_close(gradient(shared_run[0][1]), jax.device_get(by_student), 1e-5)
    assert not any(np.any(x) for x in jax.tree.leaves(by_teacher))


def test_cross_entropy_alone_equals_the_loss_by_hand(
    tiny, shared, batches, shared_trainer, shared_run
):
    """Also what evaluation reports of the same state and batch."""
    states, rows = shared_run
    state, batch, row = states[1], batches[1], rows[1]
    assert TABLE[BEGIN + 1] == (1.0, 0.0, 0.0)
    student = merge_params(state.params, state.frozen_params)

    @jax.jit
    def logits(student, teacher):
        hidden = whisper.encode(teacher, tiny.TEACHER, batch["log_mel"], FLOAT32)
        states = whisper.decode(student, tiny.STUDENT, batch["input_ids"], hidden, FLOAT32)
        return whisper.logits(student, states)

    z = np.asarray(logits(student, shared_trainer.teacher), np.float64)
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    of_label = np.take_along_axis(log_p, batch["labels"][..., None], axis=-1)[..., 0]
    mask = batch["label_mask"]
    ce = -(of_label * mask).sum() / mask.sum()
    accuracy = ((z.argmax(-1) == batch["labels"]) * mask).sum() / mask.sum()
    np.testing.assert_allclose([row["loss"], row["ce"]], ce, rtol=1e-5)
    np.testing.assert_allclose(row["accuracy"], accuracy, rtol=1e-6)

    evaluate = jax.jit(make_eval_step(shared, shared_trainer.mesh))
    placed = put_batch(batch, shared_trainer.mesh)
    found = evaluate(state, shared_trainer.teacher, placed)
    assert {name: float(count) for name, (_, count) in found.items()} == {
        "eval_ce": mask.sum(),
        "eval_accuracy": mask.sum(),
    }
    np.testing.assert_allclose(found["eval_ce"][0] / mask.sum(), ce, rtol=1e-5)
    np.testing.assert_allclose(found["eval_accuracy"][0] / mask.sum(), accuracy, rtol=1e-6)


def test_the_loss_is_its_parts_times_the_weights_of_the_completed_updates(shared_run):
    for (ce, teacher, itself), row in zip(TABLE[BEGIN:], shared_run[1], strict=True):
        weights = [row["ce_weight"], row["teacher_weight"], row["self_weight"]]
        np.testing.assert_allclose(weights, (ce, teacher, itself), rtol=1e-6)
        parts = ce * row["ce"] + teacher * row["kl_teacher"] + itself * row["kl_self"]
        np.testing.assert_allclose(row["loss"], parts, rtol=1e-5)


def test_an_update_is_counted_once(case):
    _, (states, _) = case
    assert [int(state.step) for state in states] == list(range(BEGIN, BEGIN + UPDATES + 1))


def test_the_ema_is_seeded_when_its_phase_begins_and_follows_its_closed_form(shared_run):
    states, rows = shared_run
    np.testing.assert_allclose(rows[0]["kl_self"], 0.0, atol=1e-6)
    expected = states[0].params
    for state in states[1:]:
        expected = jax.tree.map(lambda old, x: 0.9 * old + 0.1 * x, expected, state.params)
        assert_trees_close(state.self_params, expected, 1e-6)
    assert rows[1]["kl_self"] > 1e-6


def test_a_snapshot_is_renewed_every_k_updates_with_the_student_before_the_update(own_run):
    states, _ = own_run
    for completed, state in enumerate(states[1:]):
        renewed_at = completed - completed % 2
        assert_same_bits(state.self_params, states[renewed_at].params)


def test_cached_encoder_and_teacher_states_make_the_update_of_the_log_mel(
    tiny, teacher, batches, shared_trainer, shared_run
):
    """Exactly in float32; what is kept on disk in float16 differs by its rounding."""
    before, after = shared_run[0][:2]
    batch = dict(batches[0])
    log_mel = batch.pop("log_mel")

    @jax.jit
    def run_teacher(teacher):
        hidden = whisper.encode(teacher, tiny.TEACHER, log_mel, FLOAT32)
        return hidden, whisper.decode(teacher, tiny.TEACHER, batch["input_ids"], hidden, FLOAT32)

    hidden, states = map(np.asarray, run_teacher(teacher))
    whole = batch | {"encoder_states": hidden, "teacher_states": states}
    state, _ = shared_trainer.update(before, whole)
    assert_trees_close(gradient(state), gradient(after), 1e-6)
    rounded = batch | {"encoder_states": hidden.astype(np.float16)}
    state, _ = shared_trainer.update(before, rounded)
    assert_trees_close(gradient(state), gradient(after), 1e-2)


def test_dropout_follows_the_step_so_that_a_resumed_run_draws_the_same(
    own_trainer, own_run, wide_batches
):
    states, rows = own_run
    for completed in (1, 3):
        state, metrics = own_trainer.update(states[completed], wide_batches[completed])
        assert_same_bits(state, states[completed + 1])
    elsewhere = states[1].replace(step=np.int32(BEGIN + 2))
    _, metrics = own_trainer.update(elsewhere, wide_batches[1])
    assert abs(float(metrics["ce"][0] / metrics["ce"][1]) - rows[1]["ce"]) > 1e-4


def test_one_compile_a_label_bucket(tiny, shared, teacher, batches):
    trainer = Trainer(shared, teacher, FROZEN["shared"], phase=Phase(False, False))
    hidden = np.ones((ROWS, tiny.TEACHER.n_audio_ctx, tiny.TEACHER.n_state), np.float16)
    long = [batch | {"encoder_states": hidden} for batch in batches]
    for batch in long:
        batch.pop("log_mel")
    short = long[0] | {n: long[0][n][:, :6] for n in ("input_ids", "labels", "label_mask")}
    trainer.run([long[0], short, long[1], short, long[2]])
    assert trainer.step._cache_size() == 2
