"""The demo runs to its end with a small budget, and refuses what it cannot use."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from fastwhisper_jax.commands import demo, evaluate
from fastwhisper_jax.commands.demo import Budget
from fastwhisper_jax.config.overrides import override
from fastwhisper_jax.config.recipe import load_recipe
from fastwhisper_jax.export.hf_load import load_model

PROJECT = Path(__file__).parents[2]
SMALL = Budget(train=16, test=8, steps=4)


@pytest.fixture(scope="module")
def speaks():
    for module in ("espeakng_loader", "matplotlib"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install '.[demo]'")


@pytest.fixture(scope="module")
def whole(speaks, tmp_path_factory):
    out, lines = tmp_path_factory.mktemp("demo") / "out", []
    return out, demo.run(out, lines.append, SMALL), "\n".join(lines)


def test_every_stage_is_announced_and_the_table_printed(whole):
    out, _, logged = whole
    positions = [logged.index(f"[{number}/6] ") for number in range(1, 7)]
    assert positions == sorted(positions)
    table = (out / "report.md").read_text().split("\n\n")[1]
    assert table in logged and logged.index(table) > positions[-1]
    assert [row.split("|")[1].strip() for row in table.splitlines()[2:]] == [
        "teacher",
        "ASKD",
        "CE only",
    ]


def test_the_table_and_the_report_hold_the_results_of_the_evaluations(whole):
    out, results, logged = whole
    models = json.loads((out / "report.json").read_text())["models"]
    for result, folder in zip(results, ("teacher", "askd", "ce"), strict=True):
        for voices, report in (("seen", result.seen), ("unseen", result.unseen)):
            written = json.loads((out / "reports" / f"{folder}-{voices}.json").read_text())
            assert models[result.name][f"{voices}_voices"] == written
            assert written["wer"] == report.wer and written["utterances"] == SMALL.test
        assert f"| {100 * result.unseen.wer:.1f} |".replace(" ", "") in logged.replace(" ", "")


def test_the_recipes_of_both_students_differ_in_the_objective_only(whole):
    out, results, _ = whole
    configs = {}
    for name in ("askd", "ce"):
        assert load_model(out / name).dims.n_text_layer == 1
        configs[name] = json.loads((out / "runs" / name / "config.json").read_text())
        rows = (out / "runs" / name / "metrics.jsonl").read_text().splitlines()
        assert json.loads(rows[-1])["step"] == SMALL.steps
    assert configs["askd"].pop("objective") != configs["ce"].pop("objective")
    assert configs["askd"] == configs["ce"]
    assert results[0].seen.parameters > results[1].seen.parameters == results[2].seen.parameters


def test_it_ends_with_a_transcript_its_reference_and_the_next_commands(whole):
    out, _, logged = whole
    first = json.loads((out / "speech" / "test-unseen.jsonl").read_text().splitlines()[0])
    end = logged[logged.index("fastwhisper transcribe") :]
    assert "student:" in end and f"reference: {first['text']}" in end
    advised = re.search(r"fastwhisper train (\S+)((?: |\\\n|[\w./-])*)\n  fastwhisper export", end)
    options = advised.group(2).replace("\\\n", " ").split()[2:]
    config = override(load_recipe(PROJECT / advised.group(1)), options)
    assert config.teacher.path == "openai/whisper-base"  # the recipe was tuned for this teacher
    assert (PROJECT / "docs" / "own-audio.md").is_file() and "(docs/own-audio.md)" in end
    assert (out / "plot.png").stat().st_size > 10_000
    assert not (out / "cache").exists()


def test_a_folder_that_is_not_empty_is_refused(speaks, fastwhisper, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    done = fastwhisper("demo", "--out", tmp_path)
    assert (done.code, done.out) == (2, "") and done.err.count("\n") == 1
    assert f"--out {tmp_path} exists and is not empty; choose an empty or new folder" in done.err
    done = fastwhisper("demo", "--out", tmp_path / "mine.txt")
    assert (done.code, done.out) == (2, "") and "is a file" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("module", ["espeakng_loader", "matplotlib"])
def test_a_missing_package_of_the_extra_is_named(monkeypatch, fastwhisper, tmp_path, module):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == module else find_spec(name)
    )
    done = fastwhisper("demo", "--out", tmp_path / "out")
    assert (done.code, done.out) == (2, "") and done.err.count("\n") == 1
    assert "pip install '.[demo]'" in done.err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("is_there", [False, True])
def test_ctrl_c_leaves_nothing_behind(monkeypatch, speaks, fastwhisper, tmp_path, is_there):
    def interrupt(_):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    if is_there:
        out.mkdir()
    monkeypatch.setattr(demo, "Budget", lambda: SMALL)
    monkeypatch.setattr(evaluate, "run", interrupt)
    done = fastwhisper("demo", "--out", out)
    assert done.code == 75
    assert done.err.splitlines()[-1].startswith("interrupted: ") and str(out) in done.err
    assert list(out.iterdir()) == [] if is_there else not out.exists()
