"""The eval sets of a recipe: `data.eval` holds paths, and NAME=PATH for what is reported apart."""

import re
from collections.abc import Sequence

# Metrics of the student's EMA begin with this name, so no eval set has it.
EMA = "ema"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def split_source(entry: str) -> tuple[str, str]:
    """Splits an entry of `data.eval` into the name of its set ("" without one) and its path.

    Only text before the first "=" that holds no slash is a name. So a path may hold "=".
    """
    name, equals, path = entry.partition("=")
    return (name, path) if equals and "/" not in name else ("", entry)


def join_source(name: str, path: str) -> str:
    """The inverse of `split_source`."""
    return f"{name}={path}" if name else path


def eval_sets(entries: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The paths of each eval set by its name, in the order of `data.eval`.

    Entries of the same name are one set. Entries without a name are the set "".
    """
    sets: dict[str, tuple[str, ...]] = {}
    for name, path in map(split_source, entries):
        sets[name] = (*sets.get(name, ()), path)
    return sets


def fault_of_sources(entries: Sequence[str]) -> str:
    """The rule of `data.eval` that its entries break, in words; "" if they break none."""
    named = [entry for entry in entries if split_source(entry)[1] != entry]
    if not all(map(_is_well_named, named)):
        return (
            "must hold paths, or NAME=PATH with a name of letters, digits, '_', '-' and '.' other "
            f"than {EMA!r}; begin a path that holds '=' with ./"
        )
    # The set without a name was there before the others: its runs may name a source twice.
    twice = sorted({entry for entry in named if named.count(entry) > 1})
    return f"must name each source of a set once, not {twice[0]} twice" if twice else ""


def _is_well_named(entry: str) -> bool:
    name, path = split_source(entry)
    return bool(path) and name != EMA and _NAME.fullmatch(name) is not None
