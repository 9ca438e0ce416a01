"""Training on hidden states, from the recipe's fields to the exported student."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file

WEIGHT = ("--objective.hidden_weight.init_value", 1)
NO_OTHER_TERM = (
    *("--objective.ce_weight", 0),
    *("--objective.teacher_weight.kind=constant", "--objective.teacher_weight.init_value", 0),
    "--objective.self_weight.kind=constant",
)
# The encoder learns to hear 2 s as the teacher hears 30 s.
LABEL_FREE = (
    *(*WEIGHT, *NO_OTHER_TERM, "--objective.hidden_stacks", "encoder"),
    *("--student.frozen=decoder", "--student.windows_seconds", 2),
    *("--student.decoder_layers=none", "--optimizer.learning_rate=1e-3"),
)


@pytest.fixture(scope="module")
def untranscribed(tiny_manifest, tmp_path_factory):
    """The manifest without a text in any line."""
    path = tmp_path_factory.mktemp("untranscribed") / "speech.jsonl"
    lines = [json.loads(line) for line in tiny_manifest.read_text().splitlines()]
    for line in lines:
        del line["text"]
        line["audio"] = str(tiny_manifest.parent / line["audio"])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def rows_of(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_speech_without_text_trains_an_encoder(
    fastwhisper, tiny_recipe, tiny_manifest, tiny_teacher, untranscribed, tmp_path
):
    """Its student is exported with the teacher's own decoder, and is scored on speech with text."""
    run_dir, out = tmp_path / "run", tmp_path / "student"
    sources = ("--data.train", untranscribed, "--data.eval", tiny_manifest)
    done = fastwhisper("train", tiny_recipe, "--run-dir", run_dir, *sources, *LABEL_FREE)
    assert done.code == 0, done.err
    assert "compare hidden states of encoder layers 0 with those of the teacher's 0" in done.out
    rows = rows_of(run_dir)
    distances = [row["hidden"] for row in rows]
    assert distances[-1] < 0.9 * distances[0]
    for row in rows:
        assert row["hidden_weight"] == 1 and row["loss"] == pytest.approx(row["hidden"])
        assert (row["ce"], row["kl_teacher"], row["accuracy"]) == (None, None, None)
    assert rows[-1]["eval_ce"] > 0 and "eval_wer" in rows[-1]
    assert fastwhisper("export", run_dir, "--out", out).code == 0
    assert "weight of hidden states 1.0" in (out / "README.md").read_text()
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (out, tiny_teacher))
    for name in theirs:
        if name.startswith("model.decoder"):
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_speech_without_text_is_refused_where_labels_are_read(
    fastwhisper, tiny_recipe, untranscribed, tmp_path
):
    for terms in ((), WEIGHT):
        sources = ("--data.train", untranscribed)
        done = fastwhisper("train", tiny_recipe, "--run-dir", tmp_path / "run", *sources, *terms)
        assert done.code == 2 and "utterance u0" in done.err and 'add "text"' in done.err


def test_a_student_of_another_width_is_exported_without_its_maps(
    fastwhisper, tiny_recipe, tiny_dims, write_teacher, make_params, tmp_path
):
    """A second call goes on from the checkpoint that the first one left."""
    dims = dataclasses.replace(tiny_dims, n_state=8, n_text_layer=1)
    other = write_teacher(tmp_path / "other", dims, make_params(dims))
    run_dir, out = tmp_path / "run", tmp_path / "student"
    student = ("--student.path", other, "--student.frozen=none", "--student.dropout", 0.1)
    command = ("train", tiny_recipe, "--run-dir", run_dir, *student, *WEIGHT)
    done = fastwhisper(*command)
    assert done.code == 0, done.err
    assert all(row["hidden"] > 0 for row in rows_of(run_dir))
    names = json.loads(next(run_dir.glob("checkpoints/8/metadata/metadata")).read_text())
    assert "params/hidden_maps/encoder/kernel" in json.dumps(names)
    assert fastwhisper(*command).code == 0
    assert fastwhisper("export", run_dir, "--out", out).code == 0
    exported = {name: x.shape for name, x in load_file(out / "model.safetensors").items()}
    written = {name: x.shape for name, x in load_file(other / "model.safetensors").items()}
    assert exported == written


def test_with_cached_encoder_states_the_decoders_are_compared(fastwhisper, tiny_recipe, tmp_path):
    cache = tmp_path / "cache"
    for name, terms in (("compared", WEIGHT), ("not compared", ())):
        options = ("--run-dir", tmp_path / name, "--data.cache", cache, *terms)
        done = fastwhisper("train", tiny_recipe, *options)
        assert done.code == 0, done.err
        # Only the output of the teacher's decoder is kept, so the term needs to run it.
        is_kept = any(folder.name.startswith("teacher-") for folder in cache.iterdir())
        assert is_kept == (name == "not compared")
    assert all(row["hidden"] > 0 for row in rows_of(tmp_path / "compared"))
    assert not any("hidden" in row for row in rows_of(tmp_path / "not compared"))
