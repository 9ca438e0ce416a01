"""A state as leaves with names: a checkpoint can be read without this project's classes."""

from collections.abc import Collection, Mapping
from typing import Any

import jax

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.files import Path

# Checkpoints name this field as the first version did, so that its runs go on.
_NAMES_ON_DISK = {"self_teacher_params": "self_params"}


def named_leaves(tree: Any) -> dict[str, Any]:
    """Maps 'params/encoder/conv1/kernel' and so on to leaves, in `jax.tree.leaves` order.

    None is not a leaf.
    """
    with_paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {_name(path): leaf for path, leaf in with_paths}


def _name(path: tuple[Any, ...]) -> str:
    field, slash, rest = jax.tree_util.keystr(path, simple=True, separator="/").partition("/")
    return _NAMES_ON_DISK.get(field, field) + slash + rest


def holds_field(field: str, names: Collection[str]) -> bool:
    """Whether any of the names of a checkpoint's leaves belongs to a field of the state."""
    prefix = _NAMES_ON_DISK.get(field, field) + "/"
    return any(name.startswith(prefix) for name in names)


def nest(named: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts: each slash in a name opens a dict."""
    nested: dict[str, Any] = {}
    for name, leaf in named.items():
        *folders, last = name.split("/")
        inside = nested
        for folder in folders:
            inside = inside.setdefault(folder, {})
        inside[last] = leaf
    return nested


def signatures(tree: Any) -> dict[str, str]:
    """Maps the name of every leaf to its dtype and shape, such as float32[16,32]."""
    return {
        name: f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
        for name, leaf in named_leaves(tree).items()
    }


def check_leaves(folder: Path, stored: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Checks that a checkpoint holds the leaves of a state; both are given as signatures.

    Raises:
        InputError: names all differences in one line.
    """
    differences = [
        f"{name} is {stored.get(name, 'absent')} there and {wanted.get(name, 'absent')} here"
        for name in sorted(stored.keys() | wanted.keys())
        if stored.get(name) != wanted.get(name)
    ]
    if differences:
        raise InputError(
            f"checkpoint {folder} holds another state than this run: {'; '.join(differences)}; "
            "use the configuration it was saved with, or another run directory"
        )
