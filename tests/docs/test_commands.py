"""Every command of README.md, of docs/ and of the help runs as it is printed, on tiny models.

A reader works through README.md and docs/own-audio.md, in this order and from the top. The reader
then works through any one of the other pages, or the help of a command, with the files that the
first two pages have left.
"""

import ast
import contextlib
import glob
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from support import pages

PAGES = pages.pages_to_read()
BLOCKS = [block for blocks in PAGES.values() for block in blocks]
FIRST_PAGES = ("README.md", "docs/own-audio.md")

# The first words of commands that are not run, and why.
NOT_RUN = {
    "fastwhisper demo": "trains for minutes, and needs the extra demo; it has tests of its own",
    "python3 -m venv": "makes an environment to install into; .ci/run does as well",
    ". .venv/bin/activate": "goes with it",
    "pip install": "needs a package index; .ci/run installs in fresh environments",
    "pytest": "these are the tests",
    "tensorboard": "serves until it is stopped",
    "gcloud": "needs a Google Cloud project",
    "number=$(gcloud": "needs a Google Cloud project",
    "ssh-keygen": "makes a key for gcloud",
    "eval": "starts an ssh agent for gcloud",
    "export PROJECT": "settings of launch/tpu.sh",
    "export ACCELERATOR_TYPE": "settings of launch/tpu.sh",
    "launch/tpu.sh": "needs a TPU; tests/launch/ runs it against a recorded gcloud",
    "fastwhisper prepare train.jsonl --out gs://": "writes to a bucket",
    "fastwhisper prepare test.jsonl --out gs://": "writes to a bucket",
    "fastwhisper export askd ": "of a run that gcloud has copied from a bucket",
    "(umask 077": "waits for a token to be typed, and writes to the home folder",
    "fastwhisper plan": "needs libtpu, and minutes",
    "python benchmarks/step.py": "times other programs for minutes",
    "python benchmarks/infer.py": "times other programs for minutes",
    "python benchmarks/input.py": "times whisper-base",
    "python benchmarks/plan.py": "needs libtpu, and minutes",
}
# Arguments that commands get beside their own, by their first words. The tiny models have random
# weights, so they never end a text.
APPENDED = {
    "fastwhisper train": "--training.max_new_tokens 8",
    "fastwhisper evaluate": "--max-new-tokens 8",
    "python benchmarks/compare_runtimes.py": "--max-new-tokens 8",
    "fastwhisper transcribe": "--max-new-tokens 8 --no-fallback --language en",
}
# Blocks of Python that import these names need another interpreter. The variable names it.
INTERPRETERS = {"WhisperForConditionalGeneration": "FASTWHISPER_TORCH_PYTHON"}

# Programs that a block may call in a pipe or a loop, which bash runs.
SCRIPTS = {
    "python": "",
    "fastwhisper": "-c 'import sys; from fastwhisper_jax.cli import main; sys.exit(main())'",
}


def not_run(command: Any) -> str | None:
    return next((why for begin, why in NOT_RUN.items() if command.text.startswith(begin)), None)


class Reader:
    """Does what the pages say: each block once, after the blocks above it."""

    def __init__(
        self, start: Path, fastwhisper: Callable[..., Any], pages: Mapping[str, Sequence[Any]]
    ) -> None:
        self._start, self._fastwhisper, self._pages = start, fastwhisper, pages
        self._folders: dict[str, Path] = {}
        self._names: dict[str, dict[str, object]] = {}
        self._outcomes: dict[Any, BaseException | None] = {}
        self._bin = start.parent / "bin"
        self._bin.mkdir()
        for name, code in SCRIPTS.items():
            (self._bin / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {code} "$@"\n')
            (self._bin / name).chmod(0o755)

    def read(self, block: Any) -> None:
        """Runs a block after all blocks that come before it, and raises the error of the block."""
        for each in self._pages[block.page]:
            if each not in self._outcomes:
                folder = self.folder(each.page)
                self._outcomes[each] = None
                try:
                    with self._at_desk(folder):
                        self.run(each)
                except (Exception, SystemExit, pytest.skip.Exception) as error:
                    self._outcomes[each] = error
            outcome = self._outcomes.get(each)
            if each == block and outcome is not None:
                raise outcome
            if each == block:
                return
            assert isinstance(outcome, pytest.skip.Exception | None), f"{each} failed: {outcome}"

    def folder(self, page: str) -> Path:
        """The folder for a page: a copy of what the first pages have left."""
        if page not in self._folders:
            before = self._start
            earlier = FIRST_PAGES[: FIRST_PAGES.index(page)] if page in FIRST_PAGES else FIRST_PAGES
            for first in earlier:
                with contextlib.suppress(pytest.skip.Exception):
                    self.read(self._pages[first][-1])
                before = self._folders[first]
            name = re.sub(r"\W+", "-", page)
            self._folders[page] = Path(shutil.copytree(before, self._start.parent / name))
        return self._folders[page]

    @contextlib.contextmanager
    def _at_desk(self, folder: Path) -> Iterator[None]:
        """Makes `folder` the working directory, under one path for all pages.

        A run knows its data by absolute paths, and a reader's files do not move between pages.
        """
        desk = folder.rename(folder.parent / "desk")
        try:
            with contextlib.chdir(desk):
                yield
        finally:
            desk.rename(folder)

    def run(self, block: Any) -> None:
        """Runs a block in the working directory."""
        if block.language == "python":
            self._run_python(block)
            return
        assert block.language == "bash", f"{block}: neither bash nor python: {block.language}"
        commands = pages.commands_of(block.text)
        reasons = [why for why in map(not_run, commands) if why]
        for command in commands:
            if not not_run(command):
                self._run_command(command)
        if reasons and len(reasons) == len(commands):
            pytest.skip("; ".join(reasons))

    def _run_command(self, command: Any) -> None:
        if command.words is None:
            path = f"{self._bin}{os.pathsep}{os.environ['PATH']}"
            _run_process("bash", "-o", "pipefail", "-c", command.text, PATH=path)
            return
        extra = (more for begin, more in APPENDED.items() if command.text.startswith(begin))
        words = [*command.words, *shlex.split(" ".join(extra))]
        words = [name for word in words for name in sorted(glob.glob(word)) or [word]]
        if words[0] == "fastwhisper":
            done = self._fastwhisper(*words[1:])
            assert done.code == 0, f"{command.text}\nexit code {done.code}\n{done.out}{done.err}"
        elif words[0] == "python" and words[1].endswith(".py"):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "argv", words[1:])
                runpy.run_path(words[1], run_name="__main__")
        else:
            _run_process(*words)

    def _run_python(self, block: Any) -> None:
        imports = [
            node
            for node in ast.walk(ast.parse(block.text))
            if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        names = {alias.name for node in imports for alias in node.names}
        names |= {str(node.module) for node in imports if isinstance(node, ast.ImportFrom)}
        variables = [INTERPRETERS[name] for name in sorted(names) if name in INTERPRETERS]
        if not variables:
            exec(compile(block.text, str(block), "exec"), self._names.setdefault(block.page, {}))
            return
        if not os.environ.get(variables[0]):
            pytest.skip(f"{variables[0]} is not set: it names an interpreter with what is imported")
        _run_process(os.environ[variables[0]], "-c", block.text)


def _run_process(*words: str, **environment: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def reader(start, fastwhisper):
    return Reader(start, fastwhisper, PAGES)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_runs_as_it_is_printed(reader, block):
    assert pages.commands_of(block.text) if block.language == "bash" else block.text
    reader.read(block)


def test_every_exception_is_needed():
    bash = [block for block in BLOCKS if block.language == "bash"]
    commands = [command.text for block in bash for command in pages.commands_of(block.text)]
    for begin in NOT_RUN | APPENDED:
        assert any(command.startswith(begin) for command in commands), begin
    python = " ".join(block.text for block in BLOCKS if block.language == "python")
    assert all(name in python for name in INTERPRETERS)


def test_a_section_that_is_left_to_another_test_is_read_there():
    for (page, section), test in pages.RUN_BY.items():
        assert section in {block.section for block in pages.blocks_of_page(page)}
        assert Path(page).name in (pages.ROOT / test).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [page for page in PAGES if page.endswith(".md")])
def test_every_fence_is_closed_and_of_a_language_that_is_known(page):
    blocks = pages.blocks_of_page(page)
    assert {b.language for b in blocks} <= pages.QUIET_LANGUAGES | {"bash", "python"}
    fences = re.findall("^ *```", (pages.ROOT / page).read_text(), re.MULTILINE)
    assert len(fences) == 2 * len(blocks)


def test_commands_are_joined_where_they_go_on_and_cut_where_they_end():
    text = "a 'x && y' \\\n    b  # why\n\n# nothing\nc && d\ne | f\nfor i in 1 2\ndo g\ndone\n"
    assert [command.words or command.text for command in pages.commands_of(text)] == [
        ("a", "x && y", "b"),
        ("c",),
        ("d",),
        "e | f",
        "for i in 1 2\ndo g\ndone",
    ]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("bash", "fastwhisper evaluate nothing --data train.jsonl\n"),
        ("bash", "fastwhisper nothing\n"),
        ("bash", "false\n"),
        ("bash", "true | false\n"),
        ("bash", "fastwhisper nothing 2>&1 | cat\n"),
        ("python", "assert 1 == 2\n"),
        ("sh", "true\n"),
    ],
)
def test_what_does_not_work_is_seen(reader, tmp_path, monkeypatch, language, text):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError):
        reader.run(pages.Block("page.md", 1, language, text))


@pytest.fixture
def two_pages(tmp_path, fastwhisper):
    """A reader of the first two pages, each of one block that is given."""

    def two_pages(first, second):
        blocks = [
            pages.Block(page, 1, *block)
            for page, block in zip(FIRST_PAGES, (first, second), strict=True)
        ]
        (tmp_path / "start").mkdir()
        reader = Reader(tmp_path / "start", fastwhisper, {b.page: [b] for b in blocks})
        reader.read(blocks[1])

    return two_pages


def test_what_follows_a_block_that_is_skipped_is_run(two_pages, monkeypatch):
    monkeypatch.delenv("FASTWHISPER_TORCH_PYTHON", raising=False)
    skipped = "python", "from transformers import WhisperForConditionalGeneration\n"
    with pytest.raises(AssertionError, match="false"):
        two_pages(skipped, ("bash", "false\n"))


def test_what_follows_a_block_that_fails_fails(two_pages):
    with pytest.raises(AssertionError):
        two_pages(("bash", "false\n"), ("bash", "true\n"))


def test_what_a_page_leaves_the_next_one_finds(two_pages):
    two_pages(("bash", "touch left && false || true\n"), ("bash", "test -e left\n"))
