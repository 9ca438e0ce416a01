"""The compiled step's operations against the models' sizes."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from fastwhisper_jax.distillation.assembly import jitted_step

from fastwhisper_jax.config import ObjectiveConfig, OptimizerConfig, ScheduleConfig
from fastwhisper_jax.cost.measure import measure
from fastwhisper_jax.cost.model_flops import encoder_flops, train_step_flops
from fastwhisper_jax.cost.topology import find_slice
from fastwhisper_jax.distillation.model_options import model_options
from fastwhisper_jax.distillation.run_schedule import make_run_schedule
from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.sharding_rules import RULES
from fastwhisper_jax.training.sharding import batch_sharding, make_mesh, tree_shardings
from fastwhisper_jax.training.state import init_state, split_params
from fastwhisper_jax.training.step import Phase, StepConfig

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


def placed(tree, mesh):
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        tree,
        tree_shardings(tree, RULES, mesh),
    )


def shapes_of(dims):
    return jax.eval_shape(lambda: whisper.init_params(dims, jax.random.key(0)))


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
def test_the_compiled_step_costs_what_the_sizes_say(
    tpu_compiler, frozen, phase, tensor, rematerialise
):
    slice_ = find_slice("v5e:2x2")
    mesh = make_mesh(-1, 2, tensor, devices=list(slice_.devices))
    options = model_options(mesh, "bfloat16")
    assert options.attention == "pallas"
    student_options = model_options(mesh, "bfloat16", rematerialise)
    student = dataclasses.replace(SMALL, n_text_layer=2)
    setup = StepConfig(SMALL, student, 256, options, student_options, bool(frozen))
    objective = ObjectiveConfig(
        teacher_weight=ScheduleConfig("constant", init_value=1.0),
        self_weight=ScheduleConfig("constant", init_value=1.0),
    )
    plan = make_run_schedule(objective, OptimizerConfig(), 10)
    params, own = split_params(shapes_of(student), frozen)
    if frozen:
        own.pop("encoder")
    state = jax.eval_shape(lambda p, f: init_state(p, f, plan.optimizer, True), params, own)
    state = placed(state, mesh)
    teacher = shapes_of(SMALL)
    teacher = placed(
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16), teacher), mesh
    )
    arrays = {
        "log_mel": ((ROWS, SMALL.n_frames, SMALL.n_mels), jnp.float32),
        "input_ids": ((ROWS, TOKENS), jnp.int32),
        "labels": ((ROWS, TOKENS), jnp.int32),
        "label_mask": ((ROWS, TOKENS), jnp.float32),
    }
    batch = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))
        for name, (shape, dtype) in arrays.items()
    }
    shardings = jax.tree.map(lambda x: x.sharding, state)
    step = jitted_step(setup, phase, plan, shardings, mesh)
    found = measure(step, (state, teacher, batch), slice_.chip)
    assert found is not None
    expected = train_step_flops(
        setup, phase, ROWS, TOKENS, trains_encoder=not frozen, trains_embedding=True
    )
    assert found.cost.flops == pytest.approx(expected / mesh.size, rel=0.05)
    assert found.cost.kernel_flops > 0
    assert found.cost.collective_bytes["all-gather"] > 0
    assert found.argument_gib > 0 and found.temp_gib > 0


def test_whisper_large_v3s_encoder_costs_what_is_published_of_its_layers():
    """12 D^2 weights a layer, each used at 1500 positions, and 4 S^2 D of attention."""
    layers = 32 * (2 * 12 * 1280**2 * 1500 + 4 * 1500**2 * 1280)
    convolutions = 2 * 3 * 1280 * (128 * 3000 + 1280 * 1500)
    assert encoder_flops(LARGE_V3) == layers + convolutions
    assert 2.2e12 < encoder_flops(LARGE_V3) < 2.4e12
