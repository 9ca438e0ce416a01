"""The sha256 of every file of a folder, recorded in the folder, so that damage is noticed."""

import hashlib
import json

from fastwhisper_jax.files import Path, files_below, write_whole

FILE_NAME = "digest.json"

# Orbax writes these after the digest, when it renames the folder. A restore does not read them.
_NOT_COVERED = frozenset({FILE_NAME, "_CHECKPOINT_METADATA", "commit_success.txt"})

_BLOCK_BYTES = 2**24


def write(folder: Path) -> None:
    """Records the digests of all files of a folder, in one atomic write."""
    content = json.dumps({"sha256": _digests(folder)}, indent=1, sort_keys=True)
    write_whole(folder / FILE_NAME, content)


def damage(folder: Path) -> str | None:
    """Names the files that have changed since `write`, appeared or vanished; None if none has."""
    try:
        recorded = json.loads((folder / FILE_NAME).read_text())["sha256"]
        found = _digests(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{FILE_NAME} cannot be read ({type(error).__name__})"
    if not isinstance(recorded, dict) or not recorded:
        return f"{FILE_NAME} lists no files"
    faults = [f"{name} is missing" for name in sorted(recorded.keys() - found.keys())]
    faults += [f"{name} does not belong there" for name in sorted(found.keys() - recorded.keys())]
    faults += [
        f"{name} has changed since it was written"
        for name in sorted(recorded.keys() & found.keys())
        if recorded[name] != found[name]
    ]
    return ", ".join(faults) or None


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in files_below(folder):
        name = path.relative_to(folder).as_posix()
        if name not in _NOT_COVERED:
            digests[name] = _sha256(path)
    return digests


def _sha256(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            total.update(block)
    return total.hexdigest()
