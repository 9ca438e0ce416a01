"""Every command of README.md, of docs/ and of the help runs as it is printed, on tiny models.

A reader works through README.md and docs/own-audio.md, in this order and from the top, and then
through any one of the other pages or the help of a command, going on from what the first two left.
"""

import ast
import contextlib
import dataclasses
import glob
import io
import itertools
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fastwhisper_jax.cli import main

ROOT = Path(__file__).parents[2]
FIRST_PAGES = ("README.md", "docs/own-audio.md")

# Commands that are not run, by how they begin, and why.
NOT_RUN = {
    "fastwhisper demo": "trains for minutes, and needs the extra demo; it has tests of its own",
    "pip install": "needs a package index; .ci/run installs in fresh environments",
    "pytest": "these are the tests",
    "tensorboard": "serves until it is stopped",
}
# Arguments that commands are given beside their own, by how they begin: the tiny models have random
# weights, so that they never end a text.
APPENDED = {
    "fastwhisper evaluate": "--max-new-tokens 8",
    "fastwhisper transcribe": "--max-new-tokens 8 --no-fallback --language en",
}
# Python that needs another interpreter, by a module or a name that it imports: the variable that
# names one.
INTERPRETERS = {"WhisperForConditionalGeneration": "FASTWHISPER_TORCH_PYTHON"}

# Programs that a pipe or a loop may call, which bash runs: this interpreter, and this package.
SCRIPTS = {
    "python": "",
    "fastwhisper": "-c 'import sys; from fastwhisper_jax.cli import main; sys.exit(main())'",
}

# Fences of what is not run: configuration, output, pictures.
QUIET_LANGUAGES = {"", "json", "text"}


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page, or the example of a command's help."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of_page(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    fences = re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(page, 1 + text.count("\n", 0, f.start()), f[1], f[2]) for f in fences]


def help_of(*command: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main([*command, "--help"])
    return out.getvalue()


def example_of(*command: str) -> Block:
    found = re.search(r"^examples?:\n((?:  .*\n)+)", help_of(*command), re.MULTILINE)
    return Block(
        " ".join(["fastwhisper", *command, "--help"]), 1, "bash", found[1] if found else ""
    )


COMMANDS = re.findall(r"^    ([a-z-]+)\s", help_of(), re.MULTILINE)
PAGES = {
    page: blocks_of_page(page)
    for page in ["README.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md")))]
}
EXAMPLES = [example_of(), *(example_of(command) for command in COMMANDS)]
PAGES |= {example.page: [example] for example in EXAMPLES}
RUN = [b for blocks in PAGES.values() for b in blocks if b.language not in QUIET_LANGUAGES]


class Command(NamedTuple):
    """A command: its words, or what only a shell understands."""

    text: str
    words: tuple[str, ...] | None


def commands_of(text: str) -> list[Command]:
    """The commands of a block of bash: lines joined where they go on, cut at `&&`."""
    commands, waiting = [], ""
    for line in text.splitlines(keepends=True):
        waiting += line
        if not line.endswith("\\\n") and _is_complete(waiting):
            commands += _split(waiting)
            waiting = ""
    assert not waiting, f"the block ends within a command: {waiting}"
    return commands


def _is_complete(lines: str) -> bool:
    return subprocess.run(["bash", "-n", "-c", lines], capture_output=True).returncode == 0


def _split(lines: str) -> Iterator[Command]:
    line = lines.replace("\\\n", " ").strip()
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    is_plain = all(word == "&&" or not re.fullmatch("[();<>|&]+", word) for word in words)
    if "\n" in line or "$" in line or not is_plain:
        yield Command(line, None)
        return
    for is_end, part in itertools.groupby(words, key=lambda word: word == "&&"):
        if not is_end:
            chosen = tuple(part)
            yield Command(" ".join(chosen), chosen)


def not_run(command: Command) -> str | None:
    return next((why for begin, why in NOT_RUN.items() if command.text.startswith(begin)), None)


class Reader:
    """Does what the pages say, each block once and after those above it."""

    def __init__(self, start: Path, fastwhisper) -> None:
        self._start, self._fastwhisper = start, fastwhisper
        self._folders: dict[str, Path] = {}
        self._names: dict[str, dict[str, object]] = {}
        self._outcomes: dict[Block, BaseException | None] = {}
        self._bin = start.parent / "bin"
        self._bin.mkdir()
        for name, code in SCRIPTS.items():
            (self._bin / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {code} "$@"\n')
            (self._bin / name).chmod(0o755)

    def read(self, block: Block) -> None:
        """Runs a block after all that a reader does before it; raises what it raised."""
        for each in PAGES[block.page]:
            if each not in self._outcomes and each.language not in QUIET_LANGUAGES:
                folder = self.folder(each.page)
                self._outcomes[each] = None
                try:
                    with contextlib.chdir(folder):
                        self.run(each)
                except BaseException as error:
                    self._outcomes[each] = error
            outcome = self._outcomes.get(each)
            if each == block and outcome is not None:
                raise outcome
            if each == block:
                return
            assert isinstance(outcome, pytest.skip.Exception | None), f"{each} failed: {outcome}"

    def folder(self, page: str) -> Path:
        """Where a page is worked through: a copy of what the first pages left."""
        if page not in self._folders:
            before = self._start
            earlier = FIRST_PAGES[: FIRST_PAGES.index(page)] if page in FIRST_PAGES else FIRST_PAGES
            for first in earlier:
                self.read([b for b in PAGES[first] if b in RUN][-1])
                before = self._folders[first]
            name = re.sub(r"\W+", "-", page)
            self._folders[page] = Path(shutil.copytree(before, self._start.parent / name))
        return self._folders[page]

    def run(self, block: Block) -> None:
        """Runs a block in the working directory."""
        if block.language == "python":
            self._run_python(block)
            return
        assert block.language == "bash", f"{block}: neither bash nor python: {block.language}"
        commands = commands_of(block.text)
        reasons = [why for why in map(not_run, commands) if why]
        for command in commands:
            if not not_run(command):
                self._run_command(command)
        if reasons and len(reasons) == len(commands):
            pytest.skip("; ".join(reasons))

    def _run_command(self, command: Command) -> None:
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

    def _run_python(self, block: Block) -> None:
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
def reader(start, fastwhisper, shared_compilations, compile_quickly):
    return Reader(start, fastwhisper)


@pytest.mark.parametrize("block", RUN, ids=str)
def test_a_block_runs_as_it_is_printed(reader, block):
    assert commands_of(block.text) if block.language == "bash" else block.text
    reader.read(block)


def test_every_exception_is_needed():
    bash = [b for b in RUN if b.language == "bash"]
    commands = [command.text for block in bash for command in commands_of(block.text)]
    for begin in NOT_RUN | APPENDED:
        assert any(command.startswith(begin) for command in commands), begin
    python = " ".join(block.text for block in RUN if block.language == "python")
    assert all(name in python for name in INTERPRETERS)


def test_every_fence_is_closed_and_of_a_language_that_is_known():
    for page, blocks in PAGES.items():
        assert {b.language for b in blocks} <= QUIET_LANGUAGES | {"bash", "python"}, page
        if page.endswith(".md"):
            fences = re.findall("^ *```", (ROOT / page).read_text(), re.MULTILINE)
            assert len(fences) == 2 * len(blocks), page


def test_commands_are_joined_where_they_go_on_and_cut_where_they_end():
    text = "a 'x && y' \\\n    b  # why\n\n# nothing\nc && d\ne | f\nfor i in 1 2\ndo g\ndone\n"
    assert [command.words or command.text for command in commands_of(text)] == [
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
        reader.run(Block("page.md", 1, language, text))
