"""Every recipe for TPUs compiles for a TPU, fits it, and has the flops of its models' sizes."""

import json
from pathlib import Path

import pytest

from fastwhisper_jax.audio.windows import window_positions

RECIPES = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))
FOR_TPUS = [recipe for recipe in RECIPES if "Hardware: a TPU" in recipe.read_text()]
# The smallest slice that these recipes name, with 8 utterances per chip.
SIZES = ("--topology", "v5e:2x4", "--batch-size", 64, "--target-tokens", 128)
# ASKD begins with the step of distil_large_v3, which compiles for a minute. A self weight from the
# first update on leaves the costlier step, which also runs the self teacher.
LATER_PHASE_ALONE = {
    "askd_large_v3.py": ("--objective.self_weight.init_value", 0.3),
    "short_large_v3.py": ("--objective.self_weight.init_value", 0.3, "--window", 4),
}
COSTLIEST = {
    "askd_large_v3.py": "teacher and self teacher",
    "distil_large_v3.py": "teacher",
    "short_large_v3.py": "teacher and self teacher",
}


def name_of(path):
    return path.name


@pytest.fixture(scope="module", params=FOR_TPUS, ids=name_of)
def report(request, tpu_compiler, fastwhisper, tmp_path_factory):
    path = tmp_path_factory.mktemp("plans") / "plan.json"
    phase = LATER_PHASE_ALONE.get(request.param.name, ())
    done = fastwhisper("plan", request.param, *SIZES, *phase, "--steps-only", "--report", path)
    assert done.code == 0, done.err
    return json.loads(path.read_text())


def test_there_are_recipes_for_tpus():
    assert COSTLIEST.keys() == set(map(name_of, FOR_TPUS))


def test_the_costliest_step_of_each_recipe_is_compiled(report):
    name = Path(report["recipe"]).name
    assert [phase["name"] for phase in report["phases"]] == [COSTLIEST[name]]


def test_it_fits_with_little_temporary_memory(report):
    assert report["fits"]
    for phase in report["phases"]:
        assert phase["argument_gib"] <= 1.5
        assert phase["temp_gib"] <= 1.4


def test_its_flops_are_those_of_the_models_and_bound_it(report):
    assert report["flops"] == pytest.approx(report["closed_form_flops"], rel=0.05)
    assert {phase["bound"] for phase in report["phases"]} == {"flops"}


def test_an_update_in_a_short_window_has_a_fraction_of_the_flops(report):
    """A step of ASKD in 30 s has 24 Tflop a chip."""
    assert (report["flops"] < 4e12) == (report["window_seconds"] < 30)


def test_attention_to_audio_runs_in_kernels(report):
    """The encoder has 32 layers of attention among its positions, on 8 rows per chip."""
    encoder = 32 * 4 * window_positions(report["window_seconds"]) ** 2 * 1280 * 8
    assert all(phase["kernel_flops"] >= encoder for phase in report["phases"])
    # A step whose attention scores leave the chip accesses twice as much.
    assert all(phase["bytes_accessed"] <= 74e9 for phase in report["phases"])
