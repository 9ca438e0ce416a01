"""runs/base_en.sh gives commands that the command line takes, and ends with the two tables."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fastwhisper_jax.commands import evaluate, export, train

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "runs" / "base_en.sh"
MODELS = ("teacher", "askd", "distil", "ce")
TEACHER, TRAIN, TEST, DIGITS = "openai/whisper-base", "train.jsonl", "test.jsonl", "digits.jsonl"
OUT = "a folder"  # with a space, which a quote that is missing would show


def run_script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


@pytest.fixture(scope="module")
def commands() -> list[list[str]]:
    """The words of every command, in order."""
    dry_run = run_script(TEACHER, TRAIN, TEST, DIGITS, OUT, DRY_RUN="1")
    assert dry_run.returncode == 0, dry_run.stderr
    return [shlex.split(line) for line in dry_run.stdout.splitlines()]


@pytest.fixture
def taken(commands, fastwhisper, monkeypatch):
    """The configs of the training runs by run directory, as the command line understands them."""
    configs = {}
    monkeypatch.setattr(
        train, "run", lambda config, run_dir, log: configs.setdefault(str(run_dir), config)
    )
    monkeypatch.setattr(evaluate, "run", lambda *_: None)
    monkeypatch.setattr(evaluate, "summary", lambda *_: "scored")
    monkeypatch.setattr(export, "run", lambda *_: [])
    for program, *words in commands:
        if program == "fastwhisper":
            done = fastwhisper(*words)
            assert done.code == 0, done.err
    return configs


def test_three_runs_differ_in_their_objective_only(taken):
    assert list(taken) == [f"{OUT}/runs/{name}" for name in MODELS[1:]]
    objectives = {config.objective for config in taken.values()}
    rest = {(config.student, config.data, config.training) for config in taken.values()}
    assert len(objectives) == 3 and len(rest) == 1
    config = taken[f"{OUT}/runs/askd"]
    assert config.teacher.path == TEACHER
    assert (config.data.train, config.data.eval) == ((TRAIN,), (TEST,))
    assert config.data.cache == f"{OUT}/cache"


def test_every_model_is_exported_before_it_is_scored_on_both_test_sets(commands):
    exported = [words[-1] for words in commands if words[1] == "export"]
    assert exported == [f"{OUT}/students/{name}" for name in MODELS[1:]]
    scored = [(words[2], words[4], words[-1]) for words in commands if words[1] == "evaluate"]
    models = [TEACHER, *exported]
    assert scored == [
        (model, data, f"{OUT}/{folder}/{name}.json")
        for model, name in zip(models, MODELS, strict=True)
        for data, folder in ((TEST, "in-domain"), (DIGITS, "out-of-domain"))
    ]


def test_the_last_two_commands_compare_the_reports_that_were_written(
    commands, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for folder in ("in-domain", "out-of-domain"):
        (tmp_path / OUT / folder).mkdir(parents=True)
        for name in MODELS:
            row = {"reference": "one two", "hypothesis": "one", "id": "0", "audio_seconds": 1.0}
            hypotheses = tmp_path / OUT / folder / f"{name}.hypotheses.jsonl"
            hypotheses.write_text(json.dumps(row) + "\n")
    for program, *words in commands[-2:]:
        assert program == "python"
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert [line.split()[0] for line in done.stdout.splitlines()[1:5]] == [*MODELS]
        assert "50.00" in done.stdout or "100.00" in done.stdout


def test_a_call_without_all_five_arguments_prints_how_to_call_it():
    done = run_script(TEACHER, TRAIN)
    assert (done.returncode, done.stdout) == (2, "")
    assert "runs/base_en.sh TEACHER TRAIN.jsonl TEST.jsonl DIGITS.jsonl OUT" in done.stderr
    assert "set -euo" not in done.stderr and "#" not in done.stderr
