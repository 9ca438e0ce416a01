"""Hidden states as a term of the train step, in both stacks, on any mesh, with labels or not."""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
import optax
import pytest
from support import tiny_run as tiny
from support import tiny_step

from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.config import (
    Config,
    DataConfig,
    ObjectiveConfig,
    ScheduleConfig,
    StudentConfig,
    TeacherConfig,
    TrainingConfig,
)
from fastwhisper_jax.distillation.hidden_states import (
    HIDDEN_MAPS,
    make_comparison,
    reads_labels,
    speech_mask,
    token_mask,
)
from fastwhisper_jax.distillation.pair import PairShapes, StudentSpec
from fastwhisper_jax.distillation.run import make_step_config
from fastwhisper_jax.distillation.run_schedule import make_run_schedule
from fastwhisper_jax.distillation.shapes import batch_shapes, param_shapes, with_shardings
from fastwhisper_jax.distillation.sums import whole_student
from fastwhisper_jax.distillation.task import make_task
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.losses.hidden_states import EPSILON
from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.student import student_params
from fastwhisper_jax.training.state import abstract_state, merge_params
from fastwhisper_jax.training.step import jitted_step
from fastwhisper_jax.training.task import Phase

ROWS, LENGTH = tiny_step.ROWS, tiny_step.LENGTH
FLOAT32 = ModelOptions()
NEVER, ALWAYS = ScheduleConfig(), ScheduleConfig(init_value=0.5)
COMPARES = Phase(False, False, compares_hidden_states=True)
# The last two of the teacher's three decoder layers, its last encoder layer, a shorter window.
SHORT = dataclasses.replace(tiny.STUDENT, n_audio_ctx=30, n_audio_layer=1)
CUT = StudentSpec(SHORT, (1,), (1, 2), False, Windows((SHORT.context_seconds,)))
# As deep as the teacher in the encoder, deeper in the decoder, and of another width.
OTHER = StudentSpec(
    dataclasses.replace(tiny.TEACHER, n_state=8, n_text_layer=4),
    (0, 1),
    (0, 1, 2, 3),
    False,
    Windows((tiny.TEACHER.context_seconds,)),
)
ENCODER_ALONE = {"hidden_stacks": ("encoder",), "ce_weight": 0.0}


def recipe(student=None, accumulation_steps=1, **objective):
    """A recipe that compares hidden states beside the labels; the teacher's logits are not used."""
    settings = {"teacher_weight": NEVER, "hidden_weight": ALWAYS, "hidden_margin_seconds": 0.1}
    return Config(
        teacher=TeacherConfig(path="teacher"),
        student=student or StudentConfig(frozen=()),
        data=DataConfig(target_buckets=(LENGTH,)),
        objective=ObjectiveConfig(**settings | objective),
        training=TrainingConfig(global_batch_size=ROWS, accumulation_steps=accumulation_steps),
    )


class Case(NamedTuple):
    """A recipe and its student, as `tiny_step.Trainer` takes them."""

    config: Config
    spec: StudentSpec
    phase: Phase = COMPARES

    @property
    def accumulation_steps(self):
        return self.config.training.accumulation_steps

    @property
    def models(self):
        return PairShapes(tiny.TEACHER, self.spec, param_shapes(self.spec.dims, "float32"))

    def task(self, mesh, teacher):
        """A task without data."""
        config, spec = self.config, self.spec
        origin = teacher
        if spec.dims.n_state != tiny.TEACHER.n_state:
            origin = tiny.random_params(spec.dims, seed=1)
        student = student_params(origin, spec.dims, spec.encoder_layers, spec.decoder_layers)
        schedule = make_run_schedule(config.objective, config.optimizer, 10)
        return make_task(config, self.models, schedule, mesh, lambda: student)


@pytest.fixture(scope="module")
def teacher():
    return tiny.random_params(tiny.TEACHER)


def make_batch(rows=ROWS):
    """Rows of different lengths, of which the last is empty; the teacher hears something else."""
    generator = np.random.default_rng(0)
    log_mel = generator.normal(size=(2, rows, tiny.TEACHER.n_frames, tiny.TEACHER.n_mels))
    tokens = generator.integers(0, tiny.TEACHER.n_vocab, (2, rows, LENGTH)).astype(np.int32)
    last = generator.integers(2, LENGTH, (rows, 1))
    mask = (np.arange(LENGTH) >= 1) & (np.arange(LENGTH) <= last)
    frames = generator.integers(5, 70, rows).astype(np.int32)
    mask[-1], frames[-1] = False, 0
    return {
        "log_mel": log_mel[0, :, : SHORT.n_frames].astype(np.float32),
        "teacher_log_mel": log_mel[1].astype(np.float32),
        "speech_frames": frames,
        "input_ids": tokens[0],
        "labels": tokens[1],
        "label_mask": mask.astype(np.float32),
    }


@pytest.fixture(scope="module")
def batch():
    return make_batch()


def all_states(case, params, teacher, batch):
    """By stack: the student's states and the teacher's, each model run alone."""
    dims, tokens = case.spec.dims, batch["input_ids"]

    @jax.jit
    def run(params, teacher):
        pairs = {"encoder": [], "decoder": []}
        for model, sizes, log_mel in (
            (params, dims, batch["log_mel"]),
            (teacher, tiny.TEACHER, batch["teacher_log_mel"]),
        ):
            heard = whisper.run_encoder(model, sizes, log_mel, FLOAT32, keeps_layers=True)
            pairs["encoder"].append(heard)
            pairs["decoder"].append(
                whisper.run_decoder(model, sizes, tokens, heard.output, FLOAT32, keeps_layers=True)
            )
        return pairs

    return jax.device_get(run(params, teacher))


def by_hand(case, params, teacher, batch, pairs):
    """The mean distance of a batch in float64, given the states of both models.

    `pairs` holds, by stack, (student's layer, teacher's layer); OUTPUT is that of the stack.
    """
    states, maps = all_states(case, params, teacher, batch), params.get(HIDDEN_MAPS)
    targets, total = batch["label_mask"].sum(axis=1), 0.0
    for stack, layers in pairs.items():
        ours, theirs = states[stack]
        for number, (mine, its) in enumerate(layers):
            student, other = (
                np.asarray(x.output if layer is OUTPUT else x.layers[layer], np.float64)
                for x, layer in ((ours, mine), (theirs, its))
            )
            other = other[:, : student.shape[1]]
            if maps:
                student = student @ np.asarray(maps[stack]["kernel"][number], np.float64)
            size = (other**2).mean(-1) + EPSILON
            distance = ((student - other) ** 2).mean(-1) / size
            for row in np.flatnonzero(targets):
                if stack == "encoder":
                    # Two frames a position, the last one begun; ten frames are 0.1 s.
                    length = -(-(batch["speech_frames"][row] + 10) // 2)
                else:
                    length = 1 + np.flatnonzero(batch["label_mask"][row]).max()
                total += targets[row] * distance[row, :length].mean() / len(layers)
    return total / targets.sum()


def mean(metrics, name):
    total, count = metrics[name]
    return float(total / count)


OUTPUT = "output"
OTHER_MODEL = StudentConfig(path="other", frozen=(), decoder_layers=None)
CASES = {
    "both stacks": (
        Case(recipe(), CUT),
        # The student's only encoder layer was copied from the teacher's last.
        {"encoder": [(OUTPUT, OUTPUT)], "decoder": [(0, 1), (OUTPUT, OUTPUT)]},
    ),
    "named layers, a frozen encoder": (
        Case(
            recipe(
                StudentConfig(frozen=("encoder",)), hidden_layers=("decoder:1:1", "decoder:0:2")
            ),
            CUT,
        ),
        {"decoder": [(0, 2), (1, 1)]},
    ),
    "another width": (
        Case(recipe(OTHER_MODEL), OTHER),
        {
            "encoder": [(0, 0), (OUTPUT, OUTPUT)],
            "decoder": [(0, 0), (1, 0), (2, 1), (OUTPUT, OUTPUT)],
        },
    ),
}


@pytest.fixture(scope="module", params=CASES)
def compared(request, teacher, batch):
    """A case, its trainer, and the state and the metrics after an update."""
    case, pairs = CASES[request.param]
    trainer = tiny_step.Trainer(case, teacher)
    return case, pairs, trainer, *trainer.update(trainer.first, batch)


def test_the_term_is_its_closed_form_in_both_stacks(compared, teacher, batch):
    case, pairs, trainer, _, metrics = compared
    first = trainer.first
    student = merge_params(first.params, first.frozen_params)
    expected = by_hand(case, student, teacher, batch, pairs)
    np.testing.assert_allclose(mean(metrics, "hidden"), expected, rtol=1e-5)
    assert mean(metrics, "hidden_weight") == 0.5
    loss = 0.8 * mean(metrics, "ce") + 0.5 * expected
    np.testing.assert_allclose(mean(metrics, "loss"), loss, rtol=1e-5)
    # The teacher's logits are not computed.
    assert metrics["kl_teacher"][1] == metrics["teacher_accuracy"][1] == 0


@pytest.mark.parametrize(
    ("compared", "shape"),
    [("both stacks", (8, 1, 1)), ("another width", (2, 2, 2))],
    indirect=["compared"],
)
def test_one_device_and_eight_make_the_same_update(compared, shape, teacher, batch):
    case, _, trainer, state, metrics = compared
    eight = tiny_step.Trainer(case, teacher, shape)
    their_state, their_metrics = eight.update(eight.first, batch)
    for name in ("loss", "hidden", "ce"):
        np.testing.assert_allclose(mean(their_metrics, name), mean(metrics, name), rtol=1e-5)
    tiny_step.assert_trees_close(tiny_step.gradient(their_state), tiny_step.gradient(state), 1e-5)


@pytest.mark.parametrize("compared", ["another width"], indirect=True)
def test_accumulated_gradients_equal_those_of_the_whole_batch(compared, teacher, batch):
    case, _, _, state, metrics = compared
    config = case.config
    training = dataclasses.replace(config.training, accumulation_steps=4)
    in_parts = case._replace(config=dataclasses.replace(config, training=training))
    trainer = tiny_step.Trainer(in_parts, teacher)
    their_state, their_metrics = trainer.update(trainer.first, batch)
    for name in ("loss", "hidden", "ce"):
        np.testing.assert_allclose(mean(their_metrics, name), mean(metrics, name), rtol=1e-6)
    tiny_step.assert_trees_close(tiny_step.gradient(their_state), tiny_step.gradient(state), 1e-5)


@pytest.mark.parametrize("compared", ["another width"], indirect=True)
def test_the_gradient_is_that_of_finite_differences(compared, teacher, batch):
    """Of the loss of the whole step, along the gradient itself; the teacher is given no share."""
    case, _, trainer, state, _ = compared
    weights = trainer.task.weights_at(0)
    key = jax.random.key(0)

    @jax.jit
    def loss(params):
        sums = trainer.task.sums(
            params, trainer.first.frozen_params, teacher, None, batch, weights, key, COMPARES
        )
        return sums.loss / trainer.task.target_count(batch)

    gradient, norm = tiny_step.gradient(state), optax.tree.norm(tiny_step.gradient(state))
    step = 2e-3 / norm**2  # changes the loss by 2e-3 to first order
    first = trainer.first.params
    up = loss(jax.tree.map(lambda x, g: x + step * g, first, gradient))
    down = loss(jax.tree.map(lambda x, g: x - step * g, first, gradient))
    np.testing.assert_allclose((up - down) / (2 * step * norm**2), 1.0, rtol=1e-2)


@pytest.mark.parametrize("compared", ["another width"], indirect=True)
def test_an_update_in_bfloat16_is_that_of_float32_to_its_rounding(compared, teacher, batch):
    case, _, _, state, metrics = compared
    student = dataclasses.replace(OTHER_MODEL, dtype="bfloat16")
    narrow = tiny_step.Trainer(case._replace(config=recipe(student)), teacher)
    their_state, their_metrics = narrow.update(narrow.first, batch)
    np.testing.assert_allclose(mean(their_metrics, "hidden"), mean(metrics, "hidden"), rtol=1e-2)
    ours, theirs = map(tiny_step.gradient, (their_state, state))
    apart = optax.tree.norm(jax.tree.map(np.subtract, ours, theirs))
    assert apart < 0.05 * optax.tree.norm(theirs)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(ours))


@pytest.mark.parametrize("compared", ["another width"], indirect=True)
def test_maps_are_trained_and_belong_to_no_model(compared, teacher):
    _, _, trainer, state, _ = compared
    first, after = trainer.first.params, state.params
    shapes = {stack: leaf["kernel"].shape for stack, leaf in first[HIDDEN_MAPS].items()}
    assert shapes == {"encoder": (2, 8, 16), "decoder": (4, 8, 16)}
    for stack in shapes:
        before, now = (params[HIDDEN_MAPS][stack]["kernel"] for params in (first, after))
        assert np.all(np.any(before != now, axis=(1, 2)))
    student = whole_student(after, trainer.first.frozen_params, teacher, shares_encoder=False)
    assert student.keys() == {"encoder", "decoder"}
    of_one_width = CASES["both stacks"][0].task(trainer.mesh, teacher)
    assert of_one_width.param_shapes[0].keys() == {"encoder", "decoder"}


def test_labels_are_not_needed_to_come_nearer_to_the_teachers_encoder(teacher, batch):
    """Neither decoder is run. A batch of empty labels has one target a row."""
    case = Case(recipe(StudentConfig(frozen=("decoder",)), **ENCODER_ALONE), CUT)
    assert not reads_labels(case.config)
    trainer = tiny_step.Trainer(case, teacher)
    trainer.teacher = {"encoder": trainer.teacher["encoder"]}
    mask = np.zeros((ROWS, LENGTH), np.float32)
    mask[:-1, 3] = 1
    empty = batch | {"label_mask": mask}
    _, rows = trainer.run([empty] * 5)
    distances = [row["hidden"] for row in rows]
    assert distances == sorted(distances, reverse=True) and distances[-1] < 0.9 * distances[0]
    for row in rows:
        np.testing.assert_allclose(row["loss"], 0.5 * row["hidden"], rtol=1e-6)
        assert np.isnan([row["ce"], row["kl_teacher"], row["accuracy"]]).all()
    student = merge_params(trainer.first.params, trainer.first.frozen_params)
    pairs = {"encoder": [(OUTPUT, OUTPUT)]}
    np.testing.assert_allclose(distances[0], by_hand(case, student, teacher, empty, pairs), 1e-5)


def lowered(config):
    """The program of the run's first step, as text."""
    case, mesh = Case(config, CUT), tiny.make_mesh_of_one()
    schedule = make_run_schedule(config.objective, config.optimizer, 10)
    task = case.task(mesh, tiny.random_params(tiny.TEACHER))
    state = abstract_state(task, schedule.optimizer, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, state)
    step = jitted_step(task, schedule.phase(0), make_step_config(config, schedule), shardings)
    window = CUT.windows.longest
    arrays = batch_shapes(config, case.models, mesh, ROWS, LENGTH, True, window)
    teacher = with_shardings(param_shapes(tiny.TEACHER, "float32"), mesh)
    return step.lower(state, teacher, arrays).as_text()


@pytest.mark.parametrize("frozen", [("encoder",), ()])
def test_a_term_without_weight_leaves_the_program_as_it_is(frozen):
    student = StudentConfig(frozen=frozen)
    plain = dataclasses.replace(
        recipe(student), objective=ObjectiveConfig(ALWAYS, self_weight=ALWAYS)
    )
    unused = recipe(student, teacher_weight=ALWAYS, self_weight=ALWAYS, hidden_weight=NEVER)
    assert lowered(unused) == lowered(plain)


def test_the_teacher_is_not_run_once_the_term_has_ended(teacher, batch):
    """What is logged of the term is then its weight, 0, and no distance."""
    ended = ScheduleConfig("piecewise", 0.5, boundaries=(1,), values=(0.0,))
    config = recipe(hidden_weight=ended)
    schedule = make_run_schedule(config.objective, config.optimizer, 10)
    assert [schedule.phase(step).compares_hidden_states for step in (0, 1)] == [True, False]
    trainer = tiny_step.Trainer(Case(config, CUT, phase=schedule.phase(1)), teacher)
    trainer.teacher = {}
    _, metrics = trainer.update(trainer.first, batch)
    assert metrics["hidden"][1] == 0 and mean(metrics, "hidden_weight") == 0.0


@pytest.mark.parametrize("frames, heard", [(0, 0), (1, 1), (2, 1), (3, 2), (99, 6)])
def test_a_position_counts_that_begins_within_the_speech_and_its_margin(frames, heard):
    mask = np.asarray(speech_mask(np.int32([frames]), 6))
    np.testing.assert_array_equal(mask, np.arange(6)[None] < heard)


def test_tokens_count_up_to_the_last_target():
    mask = token_mask(np.float32([[0, 0, 1, 1, 0, 0], [0, 1, 0, 0, 1, 0], [0] * 6, [1] * 6]))
    lengths = np.array([4, 5, 0, 6])[:, None]
    np.testing.assert_array_equal(mask, np.arange(6)[None] < lengths)


def test_a_student_of_the_teachers_own_layers_is_compared_with_those(teacher):
    """A frozen encoder is left out; that of another model has layers spread evenly."""
    models = CASES["both stacks"][0].models
    pairs = make_comparison(recipe(), models).pairs
    assert [(name, *pair) for name, pair in pairs.items()] == [
        ("encoder", (0,), (1,), True),
        ("decoder", (0, 1), (1, 2), True),
    ]
    frozen = make_comparison(recipe(StudentConfig(frozen=("encoder",))), models).pairs
    assert frozen == {"decoder": pairs["decoder"]}
    pairs = make_comparison(recipe(OTHER_MODEL), CASES["another width"][0].models).pairs
    assert [pair.teacher for pair in pairs.values()] == [(0, 1), (0, 0, 1, 2)]
    assert not make_comparison(recipe(hidden_weight=NEVER), models).pairs


@pytest.mark.parametrize(
    ("changes", "reads"),
    [
        ({}, False),
        ({"ce_weight": None}, True),
        ({"ce_weight": 0.1}, True),
        ({"teacher_weight": ScheduleConfig("linear", end_value=0.1)}, True),
        ({"self_weight": ScheduleConfig("piecewise", boundaries=(1,), values=(0.1,))}, True),
        ({"teacher_weight": ScheduleConfig(end_value=0.1)}, False),  # a constant of 0
        ({"hidden_stacks": ("encoder", "decoder")}, True),
        ({"hidden_weight": NEVER}, True),
    ],
)
def test_labels_are_read_where_any_term_needs_them(changes, reads):
    assert reads_labels(recipe(**ENCODER_ALONE | changes)) == reads


@pytest.mark.parametrize(
    ("student", "objective", "words"),
    [
        ({"frozen": ("encoder",)}, {"hidden_stacks": ("encoder",)}, "compares an encoder that"),
        ({"frozen": ()}, ENCODER_ALONE, "nothing would teach the decoder; add decoder to"),
        (
            {"frozen": ()},
            {"hidden_layers": ("encoder:1:0",)},
            "names encoder:1:0: hidden states of layers that are not there; the student's encoder "
            "has layers 0 to 0, the teacher's 0 to 1",
        ),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused(student, objective, words):
    config = recipe(StudentConfig(**student), **objective)
    with pytest.raises(InputError, match=words):
        make_comparison(config, CASES["both stacks"][0].models)
