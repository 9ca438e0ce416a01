"""A run with several eval sets: what is logged of each and of the EMA, and what is exported."""

import json

import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import traverse_util

from fastwhisper_jax.export.hf_load import load_model

ERRORS = ("eval_ce", "eval_accuracy", "eval_wer", "eval_cer")
BEST_BY = "ema/far/eval_ce"
SELF_BEGIN, STEPS = 5, 8


def logged(names):
    return {f"{name}{metric}" for name in names for metric in (*ERRORS, "eval_loops")}


@pytest.fixture(scope="module")
def run(fastwhisper, tiny_recipe, tiny_manifest, tmp_path_factory):
    """A function that trains, or goes on with, one run; returns its folder and what it printed."""
    folder = tmp_path_factory.mktemp("evaluated")
    lines = tiny_manifest.read_text().splitlines()
    far = tiny_manifest.with_name("far.jsonl")
    far.write_text("\n".join(lines[::2]) + "\n")

    def run(keep_best):
        options = ("--data.eval", tiny_manifest, f"far={far}", f"near={tiny_manifest}")
        options += ("--data.cache", folder / "cache", "--training.keep_checkpoints", 9)
        options += ("--training.save_every", 2, "--training.eval_every", 2)
        options += ("--training.evaluate_at_start=true", "--training.evaluate_ema=true")
        # So high a rate makes the first updates worse than none.
        options += (f"--training.keep_best={keep_best}", "--optimizer.learning_rate=1.0")
        done = fastwhisper("train", tiny_recipe, "--run-dir", folder / "run", *options)
        assert done.code == 0, done.err
        return folder / "run", done

    yield run
    far.unlink()


@pytest.fixture(scope="module")
def trained(run):
    return run(BEST_BY)


@pytest.fixture(scope="module")
def rows(trained):
    lines = (trained[0] / "metrics.jsonl").read_text().splitlines()
    return {row["step"]: row for row in map(json.loads, lines)}


def test_each_set_is_read_and_logged_apart(trained, rows, tiny_manifest):
    printed = trained[1].out.splitlines()
    assert f"evaluate on {tiny_manifest}: 8 utterances, 0.1 minutes" in printed
    far = tiny_manifest.with_name("far.jsonl")
    assert f"evaluate on far, {far}: 4 utterances, 0.0 minutes" in printed
    assert printed[-1].endswith(f"fastwhisper export {trained[0]} --best --out DIR")
    assert list(rows) == list(range(STEPS + 1))
    assert rows[0].keys() == {"step"} | logged(("", "far/", "near/"))
    for step in (0, 2, 4, 6, 8):
        row = rows[step]
        assert all(row[error] == row[f"near/{error}"] for error in ERRORS)
        assert row["far/eval_ce"] != row["eval_ce"]


def test_the_ema_is_evaluated_from_its_first_update_on(rows):
    of_ema = logged(("ema/", "ema/far/", "ema/near/"))
    for step, row in rows.items():
        assert {name for name in row if name.startswith("ema/")} == (
            of_ema if step > SELF_BEGIN and step % 2 == 0 else set()
        )
    assert rows[STEPS]["ema/eval_ce"] != rows[STEPS]["eval_ce"]


def leaves(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def saved(run_dir, step):
    """The arrays of a checkpoint, read without the project's code."""
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore())
        return checkpointer.restore(run_dir / "checkpoints" / str(step), arguments)["state"]


@pytest.fixture
def export(fastwhisper, trained, tmp_path):
    """A function of options to the exported weights, the first line and the model card."""

    def export(*options):
        done = fastwhisper("export", trained[0], "--out", tmp_path / "out", *options)
        assert done.code == 0, done.err
        card = (tmp_path / "out" / "README.md").read_text()
        return leaves(load_model(tmp_path / "out").params), done.out.splitlines()[0], card

    return export


def assert_exported(exported, trained):
    trained = leaves(trained)
    assert trained.keys() <= exported.keys()
    for name, leaf in trained.items():
        np.testing.assert_array_equal(exported[name], leaf, err_msg=name)


@pytest.mark.parametrize(("options", "field"), [((), "params"), (("--ema",), "self_params")])
def test_the_export_is_the_student_or_the_ema_bit_for_bit(trained, export, options, field):
    state = saved(trained[0], STEPS)
    weights, line, card = export(*options)
    assert_exported(weights, state[field])
    name = "decoder/layers/mlp/fc1/kernel"
    assert (leaves(state["params"])[name] != leaves(state["self_params"])[name]).any()
    assert line.startswith(f"exported {'the EMA of ' if options else ''}step {STEPS} of")
    assert ("exponential moving average (decay 0.9)" in card) == bool(options)


def test_the_metrics_of_the_ema_are_those_of_its_export(
    rows, export, fastwhisper, tiny_manifest, tmp_path
):
    export("--ema")
    report = tmp_path / "report.json"
    options = ("--data", tiny_manifest, "--report", report, "--max-new-tokens", 8)
    assert fastwhisper("evaluate", tmp_path / "out", *options).code == 0
    values = json.loads(report.read_text())
    assert values["wer"] == rows[STEPS]["ema/eval_wer"]
    assert values["cer"] == rows[STEPS]["ema/eval_cer"]


def test_the_best_by_a_metric_of_the_ema_is_exported_with_the_emas_weights(trained, rows, export):
    step = min((6, STEPS), key=lambda step: rows[step][BEST_BY])
    weights, line, card = export("--best")
    assert_exported(weights, saved(trained[0], step)["self_params"])
    assert line.startswith(f"exported the EMA of step {step} of")
    assert line.endswith(f"; it has the lowest {BEST_BY}")
    assert f"this one has the lowest {BEST_BY}. Its figures on the data of that choice" in card


def test_the_best_by_a_metric_of_the_student_is_exported_with_the_students_weights(
    run, trained, rows, export
):
    """A finished run may say by what its best is chosen: every checkpoint keeps all its scores."""
    run("near/eval_ce")
    step = min((0, 2, 4, 6, STEPS), key=lambda step: rows[step]["near/eval_ce"])
    assert step != STEPS
    weights, line, _ = export("--best")
    assert_exported(weights, saved(trained[0], step)["params"])
    assert line.startswith(f"exported step {step} of")


def test_an_ema_that_has_not_begun_is_not_exported(trained, fastwhisper, tmp_path):
    for step in (0, 4):
        done = fastwhisper("export", trained[0], "--out", tmp_path / "x", "--ema", "--step", step)
        assert done.code == 2 and done.err.count("\n") == 1
        assert f"the EMA of {trained[0]} has not begun at step {step}, as its metrics" in done.err
        assert not (tmp_path / "x").exists()
