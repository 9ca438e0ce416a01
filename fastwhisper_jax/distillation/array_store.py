"""Arrays on disk, keyed by a hash of what they follow from, so that runs can share them."""

import dataclasses
import hashlib
import io
from collections.abc import Sequence
from typing import Any

import flax.traverse_util
import jax
import numpy as np
from jax.experimental import multihost_utils

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.files import Path, make_folder, write_whole
from fastwhisper_jax.training.distributed import wait_for_all


@dataclasses.dataclass(frozen=True)
class ArrayStore:
    """A folder of .npy files that all processes see."""

    folder: Path

    def read(self, name: str) -> np.ndarray:
        """The array of a name that is there."""
        array: np.ndarray = np.load(io.BytesIO((self.folder / f"{name}.npy").read_bytes()))
        return array

    def write(self, name: str, array: np.ndarray) -> None:
        """Writes an array; a reader sees all of it or nothing."""
        content = io.BytesIO()
        np.save(content, array)
        write_whole(self.folder / f"{name}.npy", content.getvalue())

    def absent(self, names: Sequence[str]) -> list[bool]:
        """Whether each name is missing; every process gets the answer of process 0."""
        present = {path.name for path in self.folder.iterdir()}
        absent = np.array([f"{name}.npy" not in present for name in names], bool)
        if jax.process_count() > 1:
            absent = multihost_utils.broadcast_one_to_all(absent)
        return [bool(is_absent) for is_absent in absent]


def open_store(root: Path, key: str) -> ArrayStore:
    """Opens the store of a key below a folder, and makes it if it is absent.

    Raises:
        InputError: `root` cannot be written, or is not the same folder for all processes.
    """
    folder = root / key
    probe = folder / "shared"
    if jax.process_index() == 0:
        try:
            make_folder(folder)
            write_whole(probe, "All processes of a run see this file.\n")
        except OSError as error:
            raise InputError(
                f"data.cache={str(root)!r} cannot be written ({error.strerror}); name a "
                "folder that can be, or set data.cache=none"
            ) from error
    wait_for_all("array store")
    if not probe.exists():
        raise InputError(
            f"data.cache={str(root)!r} is another folder for process {jax.process_index()} "
            "than for process 0; processes on several hosts need one that all of them see: "
            "gs://BUCKET/FOLDER, or a folder on a shared disk, or set data.cache=none"
        )
    return ArrayStore(folder)


def digest(*parts: Any) -> str:
    """32 hexadecimal digits: a hash of the text form (`repr`) of all parts."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def params_digest(params: Any) -> str:
    """A hash of every leaf's path and bytes."""
    total = hashlib.sha256()
    for name, leaf in sorted(flax.traverse_util.flatten_dict(params, sep="/").items()):
        total.update(name.encode())
        total.update(np.ascontiguousarray(leaf).tobytes())
    return total.hexdigest()[:32]
