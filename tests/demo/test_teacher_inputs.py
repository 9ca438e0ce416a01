"""The inputs of the demo's teacher and the script that trains it, with slow steps replaced."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastwhisper_jax.demo import teacher_inputs

SCRIPT = Path(__file__).parents[2] / "runs" / "demo_teacher.sh"


def test_interrupted_anywhere_and_run_again_it_makes_what_is_missing(monkeypatch, tmp_path):
    made = []

    def write(folder, name):
        """Is interrupted the first time, with the folder half-written."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).mkdir()
        made.append(name)
        if made.count(name) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(
        teacher_inputs, "write_corpus", lambda spec, folder, advance: write(folder, spec.name)
    )
    monkeypatch.setattr(
        teacher_inputs, "write_untrained", lambda folder, texts, seed: write(folder, "weights")
    )
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            teacher_inputs.main(tmp_path)
    teacher_inputs.main(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["speech", "untrained"]
    assert {path.name for path in (tmp_path / "speech").iterdir()} == {"words", "train", "dev"}
    before = list(made)
    teacher_inputs.main(tmp_path)
    assert made == before


def test_without_a_folder_it_says_what_it_needs():
    command = [sys.executable, "-m", "fastwhisper_jax.demo.teacher_inputs"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "required: WORK" in done.stderr


def run_script(folder, *arguments):
    """Runs the script with programs that only write down their arguments; returns these."""
    for name in ("python", "fastwhisper"):
        program = folder / name
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@" "" >> {folder}/calls.txt\n')
        program.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [SCRIPT, *arguments], env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    file = folder / "calls.txt"
    calls = file.read_text().split("\n\n") if file.exists() else []
    return done, [call.splitlines() for call in calls if call]


def test_the_script_trains_on_what_was_made_and_exports_it(tmp_path, fastwhisper):
    work = tmp_path / "work"
    done, (inputs, train, export) = run_script(tmp_path, work)
    assert done.returncode == 0, done.stderr
    assert inputs == ["python", "-m", "fastwhisper_jax.demo.teacher_inputs", str(work)]
    speech = {str(work / "speech" / f"{spec.name}.jsonl") for spec in teacher_inputs.CORPORA}
    assert {argument for argument in train if argument.endswith(".jsonl")} == speech
    # Only what they name is missing here, so the arguments themselves are right.
    refused = fastwhisper(*train[1:])
    assert refused.code == 2 and f"there is no folder '{work / 'untrained'}'" in refused.err
    refused = fastwhisper(*export[1:])
    assert refused.code == 2 and f"{work / 'run'} is no run directory" in refused.err


def test_the_script_without_a_folder_says_what_it_needs(tmp_path):
    done, calls = run_script(tmp_path)
    assert done.returncode != 0 and "give a folder" in done.stderr and not calls
