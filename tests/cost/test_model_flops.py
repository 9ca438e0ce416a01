"""The flops of the compiled step are those of the models' sizes."""

import dataclasses

import pytest

from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.config import (
    Config,
    ObjectiveConfig,
    ScheduleConfig,
    StudentConfig,
    TeacherConfig,
)
from fastwhisper_jax.cost.model_flops import encoder_flops
from fastwhisper_jax.cost.topology import find_slice
from fastwhisper_jax.distillation.pair import PairShapes, StudentSpec
from fastwhisper_jax.distillation.recipe_cost import RecipeCompiler
from fastwhisper_jax.distillation.run_schedule import make_run_schedule
from fastwhisper_jax.distillation.shapes import param_shapes, with_shardings
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.training.sharding import make_mesh
from fastwhisper_jax.training.task import Phase

SMALL = ModelDimensions(
    n_mels=80,
    n_audio_ctx=300,
    n_audio_head=4,
    n_audio_layer=4,
    n_audio_mlp=1024,
    n_vocab=1003,
    n_text_ctx=64,
    n_text_head=4,
    n_text_layer=4,
    n_text_mlp=1024,
    n_state=256,
)
ROWS, TOKENS = 8, 64
LARGE_V3 = dataclasses.replace(
    SMALL,
    n_mels=128,
    n_audio_ctx=1500,
    n_audio_head=20,
    n_audio_layer=32,
    n_audio_mlp=5120,
    n_state=1280,
)


@pytest.mark.parametrize(
    ("frozen", "phase", "tensor", "rematerialise"),
    [
        (("encoder",), Phase(runs_teacher=True, runs_self_teacher=True), 1, "everything"),
        ((), Phase(runs_teacher=False, runs_self_teacher=False), 1, "nothing"),
        ((), Phase(runs_teacher=False, runs_self_teacher=False), 2, "all_but_projections"),
    ],
    ids=[
        "encoder frozen and shared",
        "encoder trained, labels alone",
        "encoder trained, heads divided",
    ],
)
def test_the_compiled_step_has_the_flops_of_the_models_sizes(
    tpu_compiler, frozen, phase, tensor, rematerialise
):
    slice_ = find_slice("v5e:2x2")
    mesh = make_mesh(-1, 2, tensor, devices=list(slice_.devices))
    weight = ScheduleConfig("constant", init_value=1.0)
    config = Config(
        teacher=TeacherConfig(dtype="bfloat16"),
        student=StudentConfig(frozen=frozen, rematerialise=rematerialise, dtype="bfloat16"),
        objective=ObjectiveConfig(teacher_weight=weight, self_weight=weight),
    )
    dims = dataclasses.replace(SMALL, n_text_layer=2)
    windows = Windows((SMALL.context_seconds,))
    student = StudentSpec(dims, tuple(range(4)), (0, 3), bool(frozen), windows)
    models = PairShapes(SMALL, student, param_shapes(dims, "float32"))
    teacher_params = with_shardings(param_shapes(SMALL, "bfloat16"), mesh)
    schedule = make_run_schedule(config.objective, config.optimizer, 10)
    compiler = RecipeCompiler(
        config, models, teacher_params, schedule, mesh, slice_, window_seconds=windows.longest
    )
    measured = compiler.step(phase, ROWS, TOKENS)
    assert measured is not None
    assert measured.cost.flops == pytest.approx(compiler.closed_form(phase, ROWS, TOKENS), rel=0.05)
    assert measured.cost.kernel_flops > 0
    assert measured.cost.collective_bytes["all-gather"] > 0
    assert measured.argument_gib > 0 and measured.temp_gib > 0


def test_the_encoder_of_whisper_large_v3_has_the_flops_of_its_published_sizes():
    """A layer has 12 D^2 weights, each used at 1500 positions, and 4 S^2 D flops of attention."""
    layers = 32 * (2 * 12 * 1280**2 * 1500 + 4 * 1500**2 * 1280)
    convolutions = 2 * 3 * 1280 * (128 * 3000 + 1280 * 1500)
    assert encoder_flops(LARGE_V3) == layers + convolutions
    assert 2.2e12 < encoder_flops(LARGE_V3) < 2.4e12
