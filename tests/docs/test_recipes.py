"""The table of docs/recipes.md has every field of a recipe, with its type and its default."""

import re
from pathlib import Path

from fastwhisper_jax.config import Config
from fastwhisper_jax.config.overrides import field_help

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
ROW = re.compile(r"^\| `(\w+\.[\w.]+)` \| (.+) \| `(.*)` \| (.+) \|$", re.MULTILINE)


def plain(kind: str) -> str:
    """A type without what a table in Markdown needs."""
    return kind.replace(r" \| ", "|")


def test_the_table_of_fields_is_that_of_the_help():
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    listed = [f"  --{name}  {plain(kind)}  [{value}]" for name, kind, value, _ in rows]
    assert listed == field_help(Config()).splitlines()
