"""The sha256 of every file in a folder, kept in the folder: what was written is what is read."""

import hashlib
import json
import os
from pathlib import Path

FILE_NAME = "digest.json"

# Orbax writes these two after the digest, while it renames the folder; no restore reads them.
_NOT_COVERED = frozenset({FILE_NAME, "_CHECKPOINT_METADATA", "commit_success.txt"})


def write(folder: Path) -> None:
    """Records the digests of all files in `folder`, atomically."""
    content = json.dumps({"sha256": _digests(folder)}, indent=1, sort_keys=True)
    partial = folder / f"{FILE_NAME}.partial"
    with partial.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / FILE_NAME)


def damage(folder: Path) -> str | None:
    """Says which files of `folder` are not those that `write` saw; None if all of them are."""
    try:
        recorded = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))["sha256"]
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
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in _NOT_COVERED:
            with path.open("rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests
