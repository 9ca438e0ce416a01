"""What docs/architecture.md lists is what the code holds."""

import re
from pathlib import Path

import pytest

from fastwhisper_jax.models.whisper.hf_names import TABLE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_parameter_tree_is_that_of_the_table_of_names():
    listed = dict(re.findall(r"^((?:en|de)coder/\S+) +\((.*)\)$", PAGE, re.MULTILINE))
    assert listed == {
        row.ours: ", ".join(["layers"] * row.is_stacked + row.letters.split()) for row in TABLE
    }


def paths_of_the_main_path():
    """The files and folders of the list, each below the folder that it is indented under."""
    block = re.search(r"^```text\n(configs/.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert block is not None
    folders: dict[int, Path] = {}
    for line in block[1].splitlines():
        depth = len(line) - len(line.lstrip())
        above = folders.get(depth - 4, Path())
        for name in re.findall(r"[\w/]+(?:\.py|/)(?=[ ,]|$)", re.split(r" {3,}", line.strip())[0]):
            folders[depth] = above / name
            yield str(above / name)


PATHS = list(paths_of_the_main_path())


@pytest.mark.parametrize("path", PATHS)
def test_what_the_main_path_names_is_there(path):
    assert (ROOT / path).exists()


def test_the_main_path_names_every_module_of_the_parts_that_it_opens():
    """A part with files below it is listed whole; one without stands for all of its files."""
    modules = [Path(path) for path in PATHS if path.endswith(".py")]
    for folder in {path.parent for path in modules} - {Path("configs")}:
        there = {path.name for path in (ROOT / folder).glob("*.py")} - {"__init__.py"}
        named = {path.name for path in modules if path.parent == folder}
        missing = there - named - {"cli.py", "errors.py", "field_rules.py"}
        assert not missing, f"{folder}: {sorted(missing)}"
