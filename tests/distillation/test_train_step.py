"""The train step: one update on any mesh, in any number of micro-batches, for no frozen leaf."""

import jax
import numpy as np
import pytest
from support import tiny_run as tiny
from support import tiny_step

from fastwhisper_jax.distillation.sums import make_eval_step
from fastwhisper_jax.losses.chunked import (
    ChunkSettings,
    LogitFactors,
    Targets,
    distillation_sums,
)
from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.training.sharding import put_batch
from fastwhisper_jax.training.state import merge_params
from fastwhisper_jax.training.task import Phase, SelfTeacher

BEGIN, UPDATES = tiny_step.BEGIN, tiny_step.UPDATES
ROWS, LENGTH = tiny_step.ROWS, tiny_step.LENGTH
FLOAT32 = ModelOptions()
SHORT_FRAMES = 60


def in_short_window(batch):
    """The student hears the first frames of what the teacher hears."""
    short = batch["log_mel"][:, :SHORT_FRAMES]
    return batch | {"log_mel": short, "teacher_log_mel": batch["log_mel"]}


@pytest.fixture(scope="module")
def teacher():
    return tiny.random_params(tiny.TEACHER)


@pytest.fixture(scope="module")
def batches():
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
    """Of 16 rows: two micro-batches for each of eight devices. The student hears less."""
    pairs = zip(batches, batches[1:] + batches[:1], strict=True)
    return [
        in_short_window({name: np.concatenate([x[name], y[name]]) for name in x}) for x, y in pairs
    ]


@pytest.fixture(scope="module")
def window_batches(batches):
    """Every other one in a short window."""
    return [batches[0], *(in_short_window(batch) for batch in batches[1::2])]


@pytest.fixture(scope="module")
def shared():
    """The recipes' setting: the teacher's encoder, frozen, serves both; the self teacher an EMA."""
    return tiny_step.Case(
        frozen=("encoder", "decoder/embed_tokens"), chunk_tokens=16, temperature=2.0
    )


@pytest.fixture(scope="module")
def own():
    """Everything else: an encoder of its own, trained, of a shorter window; dropout, the gate, a
    snapshot as self teacher, two micro-batches, recomputed layers."""
    short = ModelDimensions(
        **vars(tiny.STUDENT) | {"n_audio_ctx": SHORT_FRAMES // 2, "n_audio_layer": 1}
    )
    return tiny_step.Case(
        frozen=("encoder/conv1", "decoder/norm"),
        student=short,
        options=ModelOptions(dropout=0.2, rematerialise="everything"),
        shares_encoder=False,
        adaptive=True,
        self_teacher=SelfTeacher(BEGIN, ema_decay=None, snapshot_steps=2),
        accumulation_steps=2,
    )


@pytest.fixture(scope="module")
def shared_trainer(shared, teacher):
    return tiny_step.Trainer(shared, teacher)


@pytest.fixture(scope="module")
def own_trainer(own, teacher):
    return tiny_step.Trainer(own, teacher)


@pytest.fixture(scope="module")
def shared_run(shared_trainer, batches):
    return shared_trainer.run(batches)


@pytest.fixture(scope="module")
def windows_run(shared_trainer, window_batches):
    return shared_trainer.run(window_batches)


@pytest.fixture(scope="module")
def own_run(own_trainer, wide_batches):
    return own_trainer.run(wide_batches)


@pytest.fixture(params=["shared", "own"])
def case(request):
    """The trainer of one device, and its run."""
    return tuple(request.getfixturevalue(f"{request.param}_{name}") for name in ("trainer", "run"))


@pytest.mark.parametrize(
    "name, run, shape, rows, windows",
    [
        ("shared", "shared_run", (8, 1, 1), "batches", 1),
        ("shared", "shared_run", (1, 4, 2), "batches", 1),
        ("shared", "windows_run", (4, 2, 1), "window_batches", 2),
        ("own", "own_run", (4, 2, 1), "wide_batches", 1),
        ("own", "own_run", (2, 2, 2), "wide_batches", 1),
    ],
)
def test_one_device_and_eight_make_the_same_updates(
    name, run, shape, rows, windows, teacher, request
):
    states, rows_of_one = request.getfixturevalue(run)
    eight = tiny_step.Trainer(request.getfixturevalue(name), teacher, shape)
    their_states, their_rows = eight.run(request.getfixturevalue(rows))
    for ours, theirs in zip(their_rows, rows_of_one, strict=True):
        for metric in ("loss", "ce", "kl_teacher", "kl_self"):
            np.testing.assert_allclose(ours[metric], theirs[metric], rtol=1e-5, atol=1e-5)
    tiny_step.assert_trees_close(
        tiny_step.gradient(their_states[1]), tiny_step.gradient(states[1]), 1e-5
    )
    tiny_step.assert_trees_close(their_states[-1].params, states[-1].params, 1e-3)
    assert eight.step._cache_size() == windows


def test_accumulated_gradients_equal_those_of_the_whole_batch(shared, teacher, batches, shared_run):
    (before, after, *_), (row, *_) = shared_run
    in_parts = tiny_step.Trainer(shared._replace(accumulation_steps=4), teacher)
    state, metrics = in_parts.update(before, batches[0])
    tiny_step.assert_trees_close(tiny_step.gradient(state), tiny_step.gradient(after), 1e-5)
    for name in ("loss", "ce", "kl_teacher", "kl_self", "accuracy", "grad_norm"):
        total, count = metrics[name]
        np.testing.assert_allclose(total / count, row[name], rtol=1e-5, atol=1e-6)


def test_frozen_leaves_keep_their_bits_under_weight_decay(case):
    trainer, (states, _) = case
    for state in states[1:]:
        tiny_step.assert_same_bits(state.frozen_params, trainer.first.frozen_params)
    moved = jax.tree.map(lambda x, y: (x != y).any(), states[-1].params, trainer.first.params)
    assert all(jax.tree.leaves(moved))


def test_the_optimiser_holds_nothing_for_frozen_leaves(case):
    trainer, (states, _) = case
    frozen = jax.tree_util.tree_flatten_with_path(trainer.first.frozen_params)[0]
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in frozen]
    held = jax.tree_util.tree_flatten_with_path(
        (states[-1].opt_state, states[-1].self_teacher_params)
    )[0]
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in held]
    assert names and paths
    assert not [path for path in paths for name in names if path.endswith("/" + name)]


def test_the_teacher_is_left_as_it_was(case, teacher):
    trainer, _ = case
    tiny_step.assert_same_bits(jax.device_get(trainer.teacher), teacher)


def test_the_gradient_is_the_objectives_and_the_teacher_gets_none(
    shared, teacher, batches, shared_trainer, shared_run
):
    """Differentiated through the models, by the student's parameters and by the teacher's."""
    batch = batches[0]
    count = batch["label_mask"].sum()
    frozen = shared_trainer.first.frozen_params

    @jax.jit
    def gradients(trained, teacher):
        encoder_states = whisper.encode(teacher, tiny.TEACHER, batch["log_mel"], FLOAT32)
        encoder_states = jax.lax.stop_gradient(encoder_states)

        def loss(trained, teacher):
            tokens = batch["input_ids"]
            student = merge_params(trained, frozen)
            states = whisper.decode(student, tiny.STUDENT, tokens, encoder_states, FLOAT32)
            teacher_states = whisper.decode(teacher, tiny.TEACHER, tokens, encoder_states, FLOAT32)
            embedding, teacher_embedding = (
                p["decoder"]["embed_tokens"] for p in (student, teacher)
            )
            return (
                distillation_sums(
                    LogitFactors(states, embedding),
                    Targets(
                        batch["labels"],
                        batch["label_mask"],
                        tiny_step.weights_at(BEGIN),
                        LogitFactors(teacher_states, teacher_embedding),
                        LogitFactors(states, embedding),
                    ),
                    ChunkSettings(chunk_tokens=256, temperature=2.0),
                ).loss
                / count
            )

        return jax.grad(loss, argnums=(0, 1))(trained, teacher)

    by_student, by_teacher = gradients(shared_trainer.first.params, teacher)
    tiny_step.assert_trees_close(
        tiny_step.gradient(shared_run[0][1]), jax.device_get(by_student), 1e-5
    )
    assert not any(np.any(x) for x in jax.tree.leaves(by_teacher))


def test_cross_entropy_alone_equals_the_loss_by_hand(shared, batches, shared_trainer, shared_run):
    """Also what evaluation reports of the same state and batch."""
    states, rows = shared_run
    state, batch, row = states[1], batches[1], rows[1]
    assert tiny_step.TABLE[BEGIN + 1] == (1.0, 0.0, 0.0)
    student = merge_params(state.params, state.frozen_params)

    @jax.jit
    def logits(student, teacher):
        encoder_states = whisper.encode(teacher, tiny.TEACHER, batch["log_mel"], FLOAT32)
        states = whisper.decode(student, tiny.STUDENT, batch["input_ids"], encoder_states, FLOAT32)
        teacher_states = whisper.decode(
            teacher, tiny.TEACHER, batch["input_ids"], encoder_states, FLOAT32
        )
        return whisper.logits(student, states), whisper.logits(teacher, teacher_states)

    z, z_teacher = map(np.asarray, logits(student, shared_trainer.teacher))
    z = z.astype(np.float64)
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    of_label = np.take_along_axis(log_p, batch["labels"][..., None], axis=-1)[..., 0]
    mask = batch["label_mask"]
    ce = -(of_label * mask).sum() / mask.sum()
    accuracy = ((z.argmax(-1) == batch["labels"]) * mask).sum() / mask.sum()
    np.testing.assert_allclose([row["loss"], row["ce"]], ce, rtol=1e-5)
    np.testing.assert_allclose(row["accuracy"], accuracy, rtol=1e-6)
    agreed = ((z_teacher.argmax(-1) == batch["labels"]) * mask).sum() / mask.sum()
    np.testing.assert_allclose(row["teacher_accuracy"], agreed, rtol=1e-6)

    evaluate = jax.jit(make_eval_step(shared.askd_config(shared_trainer.mesh)))
    placed = put_batch(batch, shared_trainer.mesh)
    found = evaluate(state, shared_trainer.teacher, placed)
    assert {name: float(count) for name, (_, count) in found.items()} == {
        "eval_ce": mask.sum(),
        "eval_accuracy": mask.sum(),
    }
    np.testing.assert_allclose(found["eval_ce"][0] / mask.sum(), ce, rtol=1e-5)
    np.testing.assert_allclose(found["eval_accuracy"][0] / mask.sum(), accuracy, rtol=1e-6)


def test_the_loss_is_its_parts_times_the_weights_of_the_completed_updates(shared_run):
    for (ce, teacher, self_teacher), row in zip(
        tiny_step.TABLE[BEGIN:], shared_run[1], strict=True
    ):
        weights = [row["ce_weight"], row["teacher_weight"], row["self_weight"]]
        np.testing.assert_allclose(weights, (ce, teacher, self_teacher), rtol=1e-6)
        parts = ce * row["ce"] + teacher * row["kl_teacher"] + self_teacher * row["kl_self"]
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
        tiny_step.assert_trees_close(state.self_teacher_params, expected, 1e-6)
    assert rows[1]["kl_self"] > 1e-6


def test_a_snapshot_is_renewed_every_k_updates_with_the_student_before_the_update(own_run):
    states, _ = own_run
    for completed, state in enumerate(states[1:]):
        renewed_at = completed - completed % 2
        tiny_step.assert_same_bits(state.self_teacher_params, states[renewed_at].params)


def test_cached_encoder_and_teacher_states_make_the_update_of_the_log_mel(
    teacher, batches, shared_trainer, shared_run
):
    """To rounding in float32; what is kept on disk in float16 differs by that as well."""
    before, after = shared_run[0][:2]
    batch = dict(batches[0])
    log_mel = batch.pop("log_mel")

    @jax.jit
    def run_teacher(teacher):
        encoder_states = whisper.encode(teacher, tiny.TEACHER, log_mel, FLOAT32)
        return encoder_states, whisper.decode(
            teacher, tiny.TEACHER, batch["input_ids"], encoder_states, FLOAT32
        )

    encoder_states, states = map(np.asarray, run_teacher(teacher))
    whole = batch | {"encoder_states": encoder_states, "teacher_states": states}
    state, _ = shared_trainer.update(before, whole)
    tiny_step.assert_trees_close(tiny_step.gradient(state), tiny_step.gradient(after), 2e-6)
    rounded = batch | {"encoder_states": encoder_states.astype(np.float16)}
    state, _ = shared_trainer.update(before, rounded)
    tiny_step.assert_trees_close(tiny_step.gradient(state), tiny_step.gradient(after), 1e-2)


@pytest.mark.parametrize("hears", ["less than the teacher", "SpecAugment"])
def test_cached_teacher_states_make_the_update_of_a_teacher_that_hears_all(
    hears, teacher, batches, shared_trainer, shared_run
):
    """Whatever the student hears, what the teacher says follows from its own window, unmasked."""
    before, after = shared_run[0][:2]
    clean = batches[0]["log_mel"]
    batch = in_short_window(batches[0])
    if hears == "SpecAugment":
        batch["log_mel"] = np.where(np.arange(clean.shape[1])[:, None] < 20, 0.0, clean)
    run_in_step, _ = shared_trainer.update(before, batch)

    @jax.jit
    def run_before(teacher, window):
        encoder_states = whisper.encode(teacher, tiny.TEACHER, window, FLOAT32)
        tokens = batch["input_ids"]
        return encoder_states, whisper.decode(
            teacher, tiny.TEACHER, tokens, encoder_states, FLOAT32
        )

    cached = {name: x for name, x in batch.items() if name != "teacher_log_mel"}
    cached["teacher_states"] = np.asarray(run_before(teacher, clean)[1])
    state, _ = shared_trainer.update(before, cached)
    tiny_step.assert_trees_close(tiny_step.gradient(state), tiny_step.gradient(run_in_step), 2e-6)
    # The student's encoder in its window, as it is kept on disk.
    cached["encoder_states"] = np.float16(run_before(teacher, cached.pop("log_mel"))[0])
    state, _ = shared_trainer.update(before, cached)
    tiny_step.assert_trees_close(tiny_step.gradient(state), tiny_step.gradient(run_in_step), 1e-2)
    # And it is not what the student would learn from a teacher that heard as little.
    apart = jax.tree.map(
        lambda x, y: np.abs(x - y).max() / np.abs(y).max(),
        *map(tiny_step.gradient, (after, run_in_step)),
    )
    assert max(jax.tree.leaves(apart)) > 1e-2


def test_dropout_follows_the_step_so_that_a_resumed_run_draws_the_same(
    own_trainer, own_run, wide_batches
):
    states, rows = own_run
    for completed in (1, 3):
        state, metrics = own_trainer.update(states[completed], wide_batches[completed])
        tiny_step.assert_same_bits(state, states[completed + 1])
    elsewhere = states[1].replace(step=np.int32(BEGIN + 2))
    _, metrics = own_trainer.update(elsewhere, wide_batches[1])
    assert abs(float(metrics["ce"][0] / metrics["ce"][1]) - rows[1]["ce"]) > 1e-4


def test_one_compile_a_window_and_label_bucket(shared, teacher, batches):
    trainer = tiny_step.Trainer(shared._replace(phase=Phase(False, False)), teacher)
    encoder_states = np.ones((ROWS, tiny.TEACHER.n_audio_ctx, tiny.TEACHER.n_state), np.float16)
    long = [batch | {"encoder_states": encoder_states} for batch in batches]
    for batch in long:
        batch.pop("log_mel")
    short = long[0] | {n: long[0][n][:, :6] for n in ("input_ids", "labels", "label_mask")}
    in_window = [batch | {"encoder_states": encoder_states[:, :30]} for batch in (long[0], short)]
    _, rows = trainer.run([long[0], short, long[1], short, long[2], *in_window, *in_window])
    assert trainer.step._cache_size() == 4
    # Of what the phase leaves out, there is no mean.
    assert all(np.isnan([row["kl_teacher"], row["kl_self"]]).all() for row in rows)


@pytest.mark.parametrize("frozen", [("encoder",), ()])
def test_a_frozen_encoder_of_the_students_own_has_no_dropout(frozen, own, teacher, monkeypatch):
    """Its output is the same at each update, as a cached one would be."""
    keys, run_encoder = [], whisper.run_encoder

    def run_and_note(params, dims, log_mel, options, dropout_key=None, **how):
        if dims == own.student:
            keys.append(dropout_key)
        return run_encoder(params, dims, log_mel, options, dropout_key, **how)

    monkeypatch.setattr(whisper, "run_encoder", run_and_note)
    mesh = tiny.make_mesh_of_one()
    task = own._replace(frozen=frozen).task(mesh, teacher)
    batch = {
        "log_mel": np.zeros((ROWS, SHORT_FRAMES, tiny.TEACHER.n_mels), np.float32),
        **dict.fromkeys(("input_ids", "labels"), np.zeros((ROWS, LENGTH), np.int32)),
        "label_mask": np.ones((ROWS, LENGTH), np.float32),
    }
    weights = tiny_step.weights_at(BEGIN)
    phase = Phase(runs_teacher=False, runs_self_teacher=False)
    jax.eval_shape(
        lambda key: task.sums(*task.initial_params(), teacher, None, batch, weights, key, phase),
        jax.random.key(0),
    )
    assert [key is None for key in keys] == [bool(frozen)]


def test_an_update_in_bfloat16_is_that_of_float32_to_its_rounding(
    shared, teacher, batches, shared_run
):
    before, after = shared_run[0][:2]
    narrow = tiny_step.Trainer(shared._replace(options=ModelOptions(dtype="bfloat16")), teacher)
    state, metrics = narrow.update(before, batches[0])
    total, count = metrics["loss"]
    np.testing.assert_allclose(total / count, shared_run[1][0]["loss"], rtol=1e-2)
    ours, theirs = map(tiny_step.gradient, (state, after))
    squares = jax.tree.map(lambda x, y: [np.sum((x - y) ** 2), np.sum(y**2)], ours, theirs)
    apart, whole = np.sum(np.reshape(jax.tree.leaves(squares), (-1, 2)), axis=0)
    assert np.sqrt(apart / whole) < 0.03
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(state.params))
