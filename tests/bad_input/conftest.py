"""Bad input ends with one clear line and exit code 2, and nothing is written."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from fastwhisper_jax.config.overrides import override
from fastwhisper_jax.config.recipe import load_recipe
from fastwhisper_jax.distillation.run_directory import write_config


@dataclasses.dataclass(frozen=True)
class World:
    """Copies of a recipe, its teacher and its data. A test may damage them."""

    folder: Path
    recipe: Path
    teacher: Path
    manifest: Path

    def train(self, *overrides, **changed):
        """The arguments of a training that would work but for the changes of the test.

        Args:
            overrides: overrides of the recipe's fields.
            changed: another recipe, run_dir, teacher or data.
        """
        given = {
            "recipe": self.recipe,
            "run_dir": self.folder / "run",
            "teacher": self.teacher,
            "data": self.manifest,
        } | changed
        sources = ("--teacher.path", given["teacher"], "--data.train", given["data"])
        return ("train", given["recipe"], "--run-dir", given["run_dir"], *sources, *overrides)

    def evaluate(self, *options, model=None):
        """The arguments of an evaluation of the teacher, or of another model."""
        report = () if "--report" in options else ("--report", self.folder / "report.json")
        return ("evaluate", model or self.teacher, "--data", self.manifest, *report, *options)

    def path(self, name, content=""):
        """Writes a file; returns its path."""
        (self.folder / name).write_text(content)
        return self.folder / name

    def change_line(self, number, **changes):
        """Changes fields of one line of the manifest. The first line is number 1."""
        lines = self.manifest.read_text().splitlines()
        lines[number - 1] = json.dumps(json.loads(lines[number - 1]) | changes)
        self.manifest.write_text("\n".join(lines) + "\n")

    def unfinished_run(self, *overrides):
        """The run directory of a training that was killed before its first checkpoint."""
        sources = ("--teacher.path", self.teacher, "--data.train", self.manifest)
        arguments = map(str, sources + overrides)
        write_config(self.folder / "run", override(load_recipe(self.recipe), [*arguments]))
        return self.folder / "run"


@pytest.fixture
def world(tiny_recipe, tiny_teacher, tiny_manifest, tmp_path) -> World:
    folder = tmp_path / "world"
    shutil.copytree(tiny_teacher, folder / "teacher")
    shutil.copytree(tiny_manifest.parent, folder / "speech")
    shutil.copy(tiny_recipe, folder / "askd.py")
    return World(folder, folder / "askd.py", folder / "teacher", folder / "speech/speech.jsonl")


@pytest.fixture
def refused(fastwhisper, world):
    """A function that runs a command and checks that it is refused.

    The error must be one line that contains every one of `named`. No file may be written, changed
    or removed.
    """

    def contents():
        paths = sorted(world.folder.rglob("*"))
        return {path: path.is_dir() or path.read_bytes() for path in paths}

    def refused(arguments, *named):
        before = contents()
        done = fastwhisper(*arguments)
        assert (done.code, done.out) == (2, ""), done
        assert done.err.startswith("error: ") and done.err.count("\n") == 1, done.err
        for part in named:
            assert part in done.err
        assert contents() == before

    return refused
