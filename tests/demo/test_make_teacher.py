"""The command that makes the demo's teacher, with nothing that takes long."""

import subprocess
import sys

import pytest

from fastwhisper_jax.demo import make_teacher as demo_teacher


def test_stopped_anywhere_and_given_again_it_makes_what_is_missing(monkeypatch, tmp_path):
    made, trained = [], []

    def write(folder, name):
        """Stopped at its first time, with the folder half-written."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).mkdir()
        made.append(name)
        if made.count(name) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(
        demo_teacher, "write_corpus", lambda plan, folder, advance: write(folder, plan.name)
    )
    monkeypatch.setattr(
        demo_teacher, "write_untrained", lambda folder, texts, seed: write(folder, "weights")
    )
    monkeypatch.setattr(demo_teacher.train, "run", lambda config, *_: trained.append(config))
    monkeypatch.setattr(demo_teacher.export, "run", lambda *_: [])
    monkeypatch.setattr(demo_teacher, "write_teacher", lambda *_: None)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            demo_teacher.main(tmp_path)
    demo_teacher.main(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["speech", "untrained"]
    assert {path.name for path in (tmp_path / "speech").iterdir()} == {"words", "train", "dev"}
    assert trained[0].teacher.path == str(tmp_path / "untrained")
    before = list(made)
    demo_teacher.main(tmp_path)
    assert made == before and trained[0] == trained[1]


def test_without_a_folder_it_says_what_it_needs():
    command = [sys.executable, "-m", "fastwhisper_jax.demo.make_teacher"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "required: WORK" in done.stderr
