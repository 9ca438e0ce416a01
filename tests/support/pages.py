"""Reads README.md, docs/ and the help as blocks, and a block of bash as commands."""

import contextlib
import dataclasses
import io
import itertools
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fastwhisper_jax.cli import main

ROOT = Path(__file__).parents[2]

# Sections that another test runs, in the programs that they are about: (page, heading).
RUN_BY = {("docs/exports.md", "The runtimes"): "tests/export/test_runtimes.py"}

# Languages of blocks that are not run: configuration, output, pictures.
QUIET_LANGUAGES = {"", "json", "text"}


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page, or the example of a command's help."""

    page: str
    line: int
    language: str
    text: str
    section: str = ""  # the heading of the second level above it

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of_page(page: str) -> list[Block]:
    """The fenced blocks of a file, from the top."""
    text = (ROOT / page).read_text(encoding="utf-8")
    fences = re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    blocks = []
    for fence in fences:
        above = text[: fence.start()]
        section = re.findall("^## (.+)$", above, re.MULTILINE)[-1:]
        blocks.append(Block(page, 1 + above.count("\n"), fence[1], fence[2], *section))
    return blocks


def help_of(*command: str) -> str:
    """What `fastwhisper COMMAND --help` prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main([*command, "--help"])
    return out.getvalue()


def example_of(*command: str) -> Block:
    """The example of a command's help, empty if there is none."""
    found = re.search(r"^examples?:\n((?:  .*\n)+)", help_of(*command), re.MULTILINE)
    return Block(
        " ".join(["fastwhisper", *command, "--help"]), 1, "bash", found[1] if found else ""
    )


class Command(NamedTuple):
    """A command: its words, or None if only a shell understands it."""

    text: str
    words: tuple[str, ...] | None


def commands_of(text: str) -> list[Command]:
    """The commands of a block of bash: continued lines are joined, and lines are cut at `&&`."""
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
    sets_variable = re.match(r"\w+=", line)
    if "\n" in line or "$" in line or sets_variable or not is_plain:
        yield Command(line, None)
        return
    for is_end, part in itertools.groupby(words, key=lambda word: word == "&&"):
        if not is_end:
            chosen = tuple(part)
            yield Command(" ".join(chosen), chosen)


def pages_to_read() -> dict[str, list[Block]]:
    """Every file and every command's help, with the blocks that are to be run."""
    files = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
    pages = {
        file: [block for block in blocks_of_page(file) if (file, block.section) not in RUN_BY]
        for file in files
    }
    commands = re.findall(r"^    ([a-z-]+)\s", help_of(), re.MULTILINE)
    examples = [example_of(), *(example_of(command) for command in commands)]
    pages |= {example.page: [example] for example in examples}
    return {
        page: [block for block in blocks if block.language not in QUIET_LANGUAGES]
        for page, blocks in pages.items()
    }
