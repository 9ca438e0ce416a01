"""What docs/architecture.md lists is what the code holds."""

import re
from pathlib import Path

import pytest

from fastwhisper_jax.models.whisper.hf_names import TABLE

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "fastwhisper_jax"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_parameter_tree_is_that_of_the_table_of_names():
    listed = dict(re.findall(r"^((?:en|de)coder/\S+) +\((.*)\)$", PAGE, re.MULTILINE))
    assert listed == {
        row.ours: ", ".join(["layers"] * row.is_stacked + row.letters.split()) for row in TABLE
    }


def files_to_read() -> list[str]:
    """The files of the list that a newcomer reads."""
    block = re.search(r"^```text\n(configs/.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert block is not None
    return [line.split()[0] for line in block[1].splitlines()]


def files_of_rooms() -> dict[str, list[str]]:
    """The names in the last column of the table of rooms, for each name in the first."""
    table = PAGE[PAGE.index("| room |") : PAGE.index("`tests/` mirrors")]
    rooms = {}
    for row in table.strip().splitlines()[2:]:
        first, _, last = row.split("|")[1:-1]
        for room in re.findall("`([^`]+)`", first):
            rooms[room] = re.findall(r"`([\w/]+(?:\.py|/))`", last) if room[-1] == "/" else []
    return rooms


ROOMS = files_of_rooms()


def test_ten_files_are_to_be_read_and_all_are_there():
    assert len(files_to_read()) == 10
    assert all((ROOT / path).is_file() for path in files_to_read())


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_and_its_main_files_are_there(room):
    assert (PACKAGE / room).exists()
    assert all((PACKAGE / room / file).exists() for file in ROOMS[room])


def test_every_room_is_in_the_table():
    folders = {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert (folders | modules) <= set(ROOMS)
