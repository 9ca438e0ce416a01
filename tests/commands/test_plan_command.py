"""`fastwhisper plan` measures a recipe on a slice that is not there."""

import dataclasses
import importlib.util
import json

import pytest

from fastwhisper_jax.arguments import PlanArguments
from fastwhisper_jax.commands import plan as plan_command
from fastwhisper_jax.config.recipe import load_recipe
from fastwhisper_jax.cost import chips
from fastwhisper_jax.cost.hlo.cost import Cost
from fastwhisper_jax.cost.measure import Measured
from fastwhisper_jax.cost.roofline import Roofline
from fastwhisper_jax.distillation.recipe_cost import RecipeCompiler
from fastwhisper_jax.training.task import Phase

LIBTPU = importlib.util.find_spec("libtpu") is not None
needs_libtpu = pytest.mark.skipif(not LIBTPU, reason="libtpu is not installed: the extra plan")
FIELDS = {
    "compiler",
    "topology",
    "chips",
    "hosts",
    "mesh",
    "global_batch_size",
    "target_tokens",
    "window_seconds",
    "argument_gib",
    "temp_gib",
    "hbm_gib",
    "fits",
    "flops",
    "bytes_accessed",
    "collective_bytes",
    "roofline_seconds",
    "bound",
    "samples_per_second",
    "compile_seconds",
}


@needs_libtpu
def test_a_plan_says_what_a_recipe_takes(fastwhisper, tiny_recipe, tmp_path):
    path = tmp_path / "plan.json"
    done = fastwhisper("plan", tiny_recipe, "--topology", "v5e:2x2", "--report", path)
    assert done.code == 0, done.err
    report = json.loads(path.read_text())
    assert set(report) >= FIELDS
    assert (report["chips"], report["hosts"], report["fits"]) == (4, 1, True)
    assert report["samples_per_second"] == pytest.approx(8 / report["roofline_seconds"])
    assert report["flops"] == pytest.approx(report["closed_form_flops"], rel=0.05)
    # The EMA joins when its weight leaves 0, a step after the rise begins.
    assert [(p["name"], p["steps"], p["share"]) for p in report["phases"]] == [
        ("teacher", 5, 5 / 8),
        ("teacher and self teacher", 3, 3 / 8),
    ]
    assert report["phases"][1]["flops"] == report["flops"] > report["phases"][0]["flops"]
    assert report["decoding"]["token_speed_up"] > 1
    assert report["largest_batch_per_chip"] > 2
    for words in ("4 chip(s)", "fits 16 GiB", "bound by", "roofline", "x as fast for a token"):
        assert words in done.out


@needs_libtpu
@pytest.mark.parametrize("slow_seconds", [2.0, None], ids=["slower", "does not fit"])
@pytest.mark.parametrize("slow", [Phase(True, False), Phase(True, True)])
def test_the_costliest_phase_is_the_slowest_one(tiny_recipe, monkeypatch, slow, slow_seconds):
    """The slowest phase is found by measuring; it need not be the one with the most steps."""
    asked = []

    def step(compiler, phase, rows, tokens):
        asked.append(phase)
        seconds = slow_seconds if phase == slow else 1.0
        roofline = Roofline(seconds or 0.0, "flops", {})
        return Measured(rows / 8, 1.0, Cost(), roofline, 0.0) if seconds else None

    monkeypatch.setattr(RecipeCompiler, "step", step)
    monkeypatch.setattr(RecipeCompiler, "closed_form", lambda _, phase, *rest: phase)
    monkeypatch.setattr(RecipeCompiler, "decoding", lambda *_: None)
    options = PlanArguments(str(tiny_recipe), topology="v5e:2x2")
    report = plan_command.measure_options(load_recipe(tiny_recipe), options, lambda line: None)
    # The patched closed form returns the phase that it was asked for.
    assert [report.costliest.phase, report.closed_form_flops] == [slow, slow]
    assert asked == [Phase(True, False), Phase(True, True), slow]  # the last for the largest batch
    assert report.as_json().get("roofline_seconds") == slow_seconds


@needs_libtpu
def test_a_plan_of_a_shorter_window_counts_what_the_student_hears(
    fastwhisper, tiny_recipe, tmp_path
):
    path = tmp_path / "plan.json"
    done = fastwhisper(
        *("plan", tiny_recipe, "--topology", "v5e:2x2", "--window", 4, "--report", path),
        *("--student.windows_seconds", 4, 30),
    )
    assert done.code == 0, done.err
    assert "windows of 4 s" in done.out
    report = json.loads(path.read_text())
    assert report["window_seconds"] == 4.0
    # The teacher hears its own 30 s beside them.
    assert report["flops"] == pytest.approx(report["closed_form_flops"], rel=0.05)
    decoding = report["decoding"]
    assert decoding["window_speed_up"] > decoding["token_speed_up"]


@needs_libtpu
def test_only_the_gradient_travels_between_slices(fastwhisper, tiny_recipe, tmp_path):
    """It travels once per update, in float32; a few sums travel with it."""
    path = tmp_path / "plan.json"
    done = fastwhisper(
        *("plan", tiny_recipe, "--topology", "v5e:2x2", "--slices", 2, "--steps-only"),
        *("--report", path, "--mesh.fsdp", 4, "--objective.self_weight.end_value", 0.0),
    )
    assert done.code == 0, done.err
    report = json.loads(path.read_text())
    assert (report["topology"], report["chips"], report["hosts"]) == ("2 x v5e:2x2", 8, 2)
    assert report["mesh"] == {"data": 2, "fsdp": 4, "tensor": 1}
    weights = 262 * 16 + 32 * 16 + 2_000  # embedding, positions, one layer
    assert 0 < report["collective_bytes"]["cross-slice"] < 2 * 4 * weights
    assert report["decoding"] is None and report["largest_batch_per_chip"] is None


@needs_libtpu
def test_a_recipe_that_does_not_fit_exits_1_and_says_what_to_change(
    fastwhisper, tiny_recipe, monkeypatch
):
    small = dataclasses.replace(chips.CHIPS["v5e"], hbm_gib=1e-4)
    monkeypatch.setitem(chips.CHIPS, "v5e", small)
    done = fastwhisper("plan", tiny_recipe, "--topology", "v5e:2x2", "--steps-only")
    assert done.code == 1
    assert "does not fit" in done.out and "a larger slice" in done.out


@needs_libtpu
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--batch-size", 6], "use a multiple of 4"),
        (["--target-tokens", 1000], "1 to 32"),
        (["--window", 4], "--window 4: the model hears windows of 30 s; choose one of them"),
        (["--mesh.fsdp", "3"], "mesh.fsdp=3"),
        (["--mesh.tensor", "4"], "2 heads do not divide over mesh.tensor=4"),
        (["--slices", 0], "must be at least 1"),
        (["--teacher.path", "nobody/whisper"], "download it first"),
    ],
)
def test_an_input_that_cannot_be_planned_is_an_error_of_one_line(
    fastwhisper, tiny_recipe, arguments, words
):
    done = fastwhisper("plan", tiny_recipe, "--topology", "v5e:2x2", *arguments)
    assert done.code == 2
    assert words in done.err and done.err.count("\n") == 1


def test_a_topology_must_be_named_and_known(fastwhisper, tiny_recipe):
    assert "--topology" in fastwhisper("plan", tiny_recipe).err
    done = fastwhisper("plan", tiny_recipe, "--topology", "v1:2x2")
    assert done.code == 2 and "v5e:2x4" in done.err


def test_help_shows_an_example_and_the_recipes_fields(fastwhisper, tiny_recipe):
    done = fastwhisper("plan", tiny_recipe, "--help")
    assert done.code == 0
    assert "--topology v5e:4x4" in done.out and "--mesh.fsdp" in done.out
