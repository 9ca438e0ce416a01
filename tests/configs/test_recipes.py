"""Every recipe loads, says what it is, and makes steps for its published teacher: shapes alone."""

import re
from pathlib import Path

import jax
import pytest

from fastwhisper_jax.config.recipe import fields, load_recipe
from fastwhisper_jax.distillation.pair import PairShapes, student_spec
from fastwhisper_jax.distillation.run import make_step_config
from fastwhisper_jax.distillation.run_schedule import make_run_schedule
from fastwhisper_jax.distillation.shapes import batch_shapes
from fastwhisper_jax.distillation.task import make_task
from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.training.sharding import check_batch, make_mesh
from fastwhisper_jax.training.state import abstract_state
from fastwhisper_jax.training.step import make_train_step

FOLDER = Path(__file__).parents[2] / "configs"
RECIPES = sorted(FOLDER.glob("*.py"))
SAME_BUT_FOR_THE_OBJECTIVE = ("askd_base_en.py", "ce_base_en.py", "distil_whisper_base_en.py")
STEPS_OF_AN_EPOCH = 50


def published(width, heads, layers, n_mels, n_vocab, text_layers=None):
    return ModelDimensions(
        n_mels=n_mels,
        n_audio_ctx=1500,
        n_audio_head=heads,
        n_audio_layer=layers,
        n_audio_mlp=4 * width,
        n_vocab=n_vocab,
        n_text_ctx=448,
        n_text_head=heads,
        n_text_layer=text_layers or layers,
        n_text_mlp=4 * width,
        n_state=width,
    )


# As their config.json on the Hugging Face hub says.
TEACHERS = {
    "openai/whisper-base": published(512, 8, 6, 80, 51865),
    "openai/whisper-large-v3": published(1280, 20, 32, 128, 51866),
}


def name_of(path):
    return path.name


def shapes_of(dims):
    return jax.eval_shape(lambda: whisper.init_params(dims, jax.random.key(0)))


@pytest.fixture(scope="module", params=RECIPES, ids=name_of)
def recipe(request):
    return request.param


def test_there_are_recipes_of_the_three_objectives_and_of_a_pod():
    assert {*SAME_BUT_FOR_THE_OBJECTIVE, "askd_large_v3.py"} <= set(map(name_of, RECIPES))


def test_its_docstring_says_command_hardware_hours_and_result(recipe):
    first, *rest = recipe.read_text().split('"""')[1].splitlines()
    assert first.endswith(".") and not rest[0]
    text = "\n".join(rest)
    assert f"    fastwhisper train configs/{recipe.name} --run-dir " in text
    assert re.search(r"^Hardware: \S.*Hours: \S.*Result: \S", text, re.MULTILINE | re.DOTALL)


def test_its_steps_have_the_shapes_of_its_state_in_every_phase(recipe):
    config = load_recipe(recipe)
    teacher = TEACHERS[config.teacher.path]
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    training = config.training
    check_batch("batch", training.global_batch_size, mesh, training.accumulation_steps)
    check_batch("eval", training.eval_batch_size, mesh)
    assert config.data.target_buckets[-1] <= teacher.n_text_ctx
    student = student_spec(config, teacher, teacher)
    models = PairShapes(teacher, student, shapes_of(student.dims))
    total_steps = training.steps or training.epochs * STEPS_OF_AN_EPOCH
    schedule = make_run_schedule(config.objective, config.optimizer, total_steps)
    task = make_task(config, models, schedule, mesh, load_student=dict)
    state = abstract_state(task, schedule.optimizer, mesh)

    rows, length = training.global_batch_size, config.data.target_buckets[0]
    runs_teacher, window = schedule.teacher_end > 0, student.windows.longest
    batch = batch_shapes(config, models, mesh, rows, length, runs_teacher, window)

    phases = {schedule.phase(step) for step in range(total_steps)}
    for phase in phases:
        step = make_train_step(task, phase, make_step_config(config, schedule))
        after, metrics = jax.eval_shape(step, state, shapes_of(teacher), batch)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        jax.tree.map(lambda x, y: (x.shape, x.dtype) == (y.shape, y.dtype) or 1 / 0, after, state)
        assert {pair[0].shape for pair in metrics.values()} == {()}
    assert any(phase.runs_self_teacher for phase in phases) == (
        state.self_teacher_params is not None
    )


def test_the_three_small_recipes_differ_in_their_objective_alone():
    recipes = [dict(leaves(FOLDER / name)) for name in SAME_BUT_FOR_THE_OBJECTIVE]
    for name in recipes[0]:
        if not name.startswith("objective."):
            assert len({str(values[name]) for values in recipes}) == 1, name
    assert len({str(values) for values in recipes}) == 3


def leaves(path):
    return ((name, value) for name, _, value in fields(load_recipe(path)))
