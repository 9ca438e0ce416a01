"""The glossary of CONTRIBUTING.md is short and leads to where its terms are defined."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TERMS = re.findall(r"^\| ([^|]+) \| [^|]+ \| `([\w/.]+)`(?: `(\w+)`)? \|$", PAGE, re.MULTILINE)

# A folder that a reader makes, and files of the folder that FASTWHISPER_SHARED names.
NOT_HERE = {"models/NAME/", "tools/real_assets.py", "data/"}


def test_the_glossary_has_at_most_25_terms():
    rows = PAGE[PAGE.index("| term |") :].split("\n\n")[0].splitlines()[2:]
    assert len(TERMS) == len(rows) <= 25


def test_every_term_is_defined_where_the_glossary_says():
    for term, file, name in TERMS:
        text = (ROOT / "fastwhisper_jax" / file).read_text(encoding="utf-8")
        assert re.search(rf"\b{name}\b", text), term


def test_the_files_that_the_page_names_exist():
    named = re.findall(r"`((?:[\w.]+/)+(?:\w+\.py)?)`", PAGE)
    folders = (ROOT, ROOT / "fastwhisper_jax")
    for path in set(named) - NOT_HERE:
        assert any((folder / path).exists() for folder in folders), path
