"""The commands train, resume, export and evaluate a tiny model, in this process."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import traverse_util

from fastwhisper_jax.export.hf_load import load_model
from fastwhisper_jax.training.metrics import MetricsLog

GUIDE = Path(__file__).parents[2] / "docs" / "own-audio.md"
STEPS = 8
STOPPED_AT = 3
TIMES = {"step_seconds", "samples_per_second"}
LOGGED = TIMES | {
    "step",
    "loss",
    "ce",
    "kl_teacher",
    "kl_self",
    "teacher_weight",
    "self_weight",
    "ce_weight",
    "learning_rate",
    "grad_norm",
}
EVALUATED = {"eval_ce", "eval_accuracy", "eval_wer", "eval_cer", "eval_loops"}
REPORTED = {
    "wer",
    "cer",
    "substitutions",
    "deletions",
    "insertions",
    "reference_words",
    "loops",
    "loop_errors",
    "wer_without_loops",
    "utterances",
    "audio_seconds",
    "wall_seconds",
    "rtfx",
    "parameters",
    "normalizer",
    "model",
    "data",
}
GIVEN_APART = {"load_seconds", "compile_seconds"}


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def leaves(folder):
    return traverse_util.flatten_dict(load_model(folder).params, sep="/")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def train(fastwhisper, tiny_recipe, tiny_manifest, folder):
    """Trains in a folder of this name. All of these runs share a cache."""

    def train(name, *more, evaluates=False):
        options = ["--data.cache", folder / "cache", *more]
        options += ["--data.eval", tiny_manifest] if evaluates else []
        return fastwhisper("train", tiny_recipe, "--run-dir", folder / name, *options)

    return train


@pytest.fixture(scope="module")
def whole(train, folder):
    """A run that was not interrupted, evaluated at its end."""
    done = train("whole", evaluates=True)
    assert done.code == 0, done.err
    return folder / "whole", done


@pytest.fixture(scope="module")
def stopped(train, folder):
    """A run that SIGTERM stopped after a few steps."""
    write = MetricsLog.write

    def write_and_stop(log, step, values):
        write(log, step, values)
        if step == STOPPED_AT - 1:  # the loop has checked for a signal already
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetricsLog, "write", write_and_stop)
        done = train("stopped")
    assert signal.getsignal(signal.SIGTERM) == before
    return folder / "stopped", done


@pytest.fixture(scope="module")
def resumed(train, stopped):
    """The same run after the same command was given again."""
    done = train("stopped")
    assert done.code == 0, done.err
    return stopped[0], done


@pytest.fixture(scope="module")
def exported(fastwhisper, whole, folder):
    done = fastwhisper("export", whole[0], "--out", folder / "exported")
    assert done.code == 0, done.err
    return folder / "exported", done


@pytest.fixture(scope="module")
def report(fastwhisper, exported, tiny_manifest, folder):
    path = folder / "reports" / "tiny.json"
    done = fastwhisper("evaluate", exported[0], "--data", tiny_manifest, "--report", path)
    assert done.code == 0, done.err
    return path, done


def test_train_prints_models_data_and_the_next_command(whole, folder, tiny_teacher, tiny_manifest):
    lines = whole[1].out.splitlines()
    assert lines[0].startswith(f"teacher: {tiny_teacher}, ") and "parameters" in lines[0]
    assert "decoder layers 1 of the teacher; frozen: encoder" in lines[1]
    assert lines[2].startswith(f"train on {tiny_manifest}: 8 utterances")
    assert lines[3].startswith(f"evaluate on {tiny_manifest}: 8 utterances")
    kept = "the teacher's decoder states and the student's encoder states"
    assert lines[4] == f"cache {folder}/cache: {kept}"
    assert lines[5].startswith(f"{STEPS} steps of 8 utterances on 8 cpu device(s), mesh data 8 x ")
    assert lines[-1] == f"done; export the student with: fastwhisper export {whole[0]} --out DIR"


def test_a_run_directory_holds_config_metrics_checkpoints_and_tensorboard(whole):
    run_dir, _ = whole
    assert {path.name for path in run_dir.iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "checkpoints",
        "tensorboard",
    }
    logged = rows(run_dir / "metrics.jsonl")
    assert [row["step"] for row in logged] == list(range(1, STEPS + 1))
    assert all(set(row) >= LOGGED for row in logged)
    assert set(logged[-1]) >= EVALUATED and not EVALUATED & set(logged[0])


def test_weights_follow_the_recipe_from_row_to_row(whole):
    logged = rows(whole[0] / "metrics.jsonl")
    # Row s logs the update that follows s - 1 completed ones.
    cosine = [0.2 + 0.8 * (1 + np.cos(np.pi * min(s / 4, 1))) / 2 for s in range(STEPS)]
    rise = [0.5 * max(s - 4, 0) / 4 for s in range(STEPS)]
    np.testing.assert_allclose([row["teacher_weight"] for row in logged], cosine, atol=1e-6)
    np.testing.assert_allclose([row["self_weight"] for row in logged], rise, atol=1e-6)
    assert [row["kl_self"] is not None for row in logged] == [weight > 0 for weight in rise]
    assert logged[-1]["ce"] < logged[0]["ce"]


def test_sigterm_ends_with_75_after_the_step_is_saved(stopped):
    run_dir, done = stopped
    assert done.code == 75
    last = done.err.splitlines()[-1]
    assert last == (
        f"interrupted: stopped after step {STOPPED_AT} of {STEPS}, which is saved; the same "
        "command goes on from there"
    )
    assert "Traceback" not in done.err
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == [str(STOPPED_AT)]


def test_the_same_command_resumes_where_the_run_stopped(resumed):
    run_dir, done = resumed
    assert f"resumed from the checkpoint of step {STOPPED_AT}" in done.err
    assert [row["step"] for row in rows(run_dir / "metrics.jsonl")] == list(range(1, STEPS + 1))


def test_a_resumed_run_equals_an_uninterrupted_one(fastwhisper, resumed, whole, exported, folder):
    logged = [rows(run / "metrics.jsonl") for run in (resumed[0], whole[0])]
    for ours, theirs in zip(*logged, strict=True):
        compared = set(ours) - TIMES
        assert {n: ours[n] for n in compared} == {n: theirs[n] for n in compared}
    assert fastwhisper("export", resumed[0], "--out", folder / "resumed").code == 0
    ours, theirs = leaves(folder / "resumed"), leaves(exported[0])
    assert ours.keys() == theirs.keys()
    for name, leaf in ours.items():
        np.testing.assert_array_equal(leaf, theirs[name])


def test_a_run_resumes_on_another_mesh_with_another_log_interval(train, whole, folder):
    run_dir = folder / "moved"
    shutil.copytree(whole[0], run_dir)
    shutil.rmtree(run_dir / "checkpoints" / str(STEPS))
    done = train(
        "moved", "--mesh.fsdp", 4, "--mesh.tensor", 2, "--training.log_every", 2, evaluates=True
    )
    assert done.code == 0, done.err
    before, after = (rows(run / "metrics.jsonl") for run in (whole[0], run_dir))
    assert [row["step"] for row in after] == [1, 2, 3, 4, 6, 8]
    assert after[:4] == before[:4]
    losses = [row["loss"] for row in before]
    expected = [(losses[4] + losses[5]) / 2, (losses[6] + losses[7]) / 2]
    np.testing.assert_allclose([row["loss"] for row in after[4:]], expected, rtol=1e-4)
    config = json.loads((run_dir / "config.json").read_text())
    assert config["mesh"] == {"data": -1, "fsdp": 4, "tensor": 2}
    refused = train("moved", "--optimizer.learning_rate", 1, evaluates=True)
    assert refused.code == 2 and "holds a run of another config: optimizer." in refused.err


def test_a_finished_run_is_left_as_it_is(train, whole):
    before = (whole[0] / "metrics.jsonl").read_bytes()
    done = train("whole", evaluates=True)
    assert done.code == 0 and done.out.splitlines()[-1].startswith("done;")
    assert (whole[0] / "metrics.jsonl").read_bytes() == before


def test_a_run_of_changed_data_is_refused_and_kept(train, whole, tiny_manifest):
    files = {path: path.read_bytes() for path in whole[0].rglob("*") if path.is_file()}
    text = tiny_manifest.read_text()
    try:
        tiny_manifest.write_text(text.replace("zero", "none"))
        done = train("whole", evaluates=True)
    finally:
        tiny_manifest.write_text(text)
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith(f"error: {whole[0]} was trained on other data")
    assert {path: path.read_bytes() for path in whole[0].rglob("*") if path.is_file()} == files


def test_what_was_exported_reads_back_as_what_was_trained(whole, exported, tiny_teacher):
    assert (
        exported[1].out.splitlines()[0] == f"exported step {STEPS} of {whole[0]} to {exported[0]}"
    )
    assert "language:\n- en\n" in (exported[0] / "README.md").read_text()
    student, teacher = leaves(exported[0]), leaves(tiny_teacher)
    for name, leaf in student.items():
        if name.startswith("encoder/"):
            np.testing.assert_array_equal(leaf, teacher[name])
    trained = "decoder/layers/attn/query/kernel"
    assert (student[trained] != teacher[trained][1:]).mean() > 0.9
    assert jax.tree.leaves(student)[0].dtype == np.float32


def test_an_earlier_step_can_be_exported(fastwhisper, whole, exported, folder):
    out = folder / "half"
    done = fastwhisper("export", whole[0], "--out", out, "--step", 4)
    assert done.code == 0 and done.out.startswith("exported step 4 of ")
    name = "decoder/layers/attn/query/kernel"
    assert (leaves(out)[name] != leaves(exported[0])[name]).any()
    # A later export replaces an earlier one.
    assert fastwhisper("export", whole[0], "--out", out).code == 0
    np.testing.assert_array_equal(leaves(out)[name], leaves(exported[0])[name])


def test_a_report_holds_exactly_the_promised_fields(report, exported, tiny_manifest):
    values = json.loads(report[0].read_text())
    assert set(values) == REPORTED | GIVEN_APART
    assert values["utterances"] == 8 and values["reference_words"] == 8
    assert values["model"] == str(exported[0]) and values["data"] == str(tiny_manifest)
    assert values["normalizer"] == "english"  # it makes one word of "one two": 12
    assert values["rtfx"] == values["audio_seconds"] / values["wall_seconds"]
    assert values["parameters"] == sum(leaf.size for leaf in leaves(exported[0]).values())


def test_the_guide_describes_every_name_in_both_files(whole, report):
    section = GUIDE.read_text(encoding="utf-8").split("\n## Files\n")[1]
    described = [
        set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.+?) \|", table, re.MULTILINE))))
        for table in section.split("**The report**")
    ]
    metrics = rows(whole[0] / "metrics.jsonl")[-1]
    assert described == [set(metrics), set(json.loads(report[0].read_text()))]


def test_the_summary_says_what_the_report_holds(report):
    values, lines = json.loads(report[0].read_text()), report[1].out.splitlines()
    assert lines[0].startswith(f"{values['model']} on {values['data']}: 8 utterances, 4.7 s")
    assert lines[1].startswith(f"  WER {values['wer']:.2%}: ") and "in 8 words" in lines[1]
    assert lines[-1] == f"  written: {report[0]} and {report[0].parent}/tiny.hypotheses.jsonl"


def test_hypotheses_are_written_beside_the_report_in_the_order_of_the_data(report, tiny_manifest):
    hypotheses = rows(report[0].with_name("tiny.hypotheses.jsonl"))
    given = rows(tiny_manifest)
    assert [row["id"] for row in hypotheses] == [row["id"] for row in given]
    assert [row["reference"] for row in hypotheses] == [row["text"] for row in given]
    values = json.loads(report[0].read_text())
    assert sum(row["loops"] for row in hypotheses) == values["loops"]


def test_limit_takes_the_first_and_the_batch_size_changes_no_text(
    fastwhisper, report, exported, tiny_manifest, folder
):
    path = folder / "first.json"
    options = ("--limit", 3, "--batch-size", 16, "--normalizer", "none", "--report", path)
    done = fastwhisper("evaluate", exported[0], "--data", tiny_manifest, *options)
    assert done.code == 0, done.err
    assert f"{tiny_manifest}: 8 utterances, 0.1 minutes; the first 3 are evaluated\n" in done.err
    values = json.loads(path.read_text())
    assert values["utterances"] == 3 and values["normalizer"] == "none"
    first = rows(report[0].with_name("tiny.hypotheses.jsonl"))[:3]
    assert rows(path.with_name("first.hypotheses.jsonl")) == first
