"""Files on a local disk or in an object store (gs://, s3://, az://), with one path class for both.

An object store cannot append to a file or rename it. Its folders exist only as parts of object
names. An object becomes visible when it is complete. So files are written in one go and never
changed.
"""

import os
import tempfile

import fsspec
from etils.epath import Path

from fastwhisper_jax.errors import InputError, extra

_SCHEMES = ("gs://", "s3://", "az://")
# How to install the package for each store, for error messages.
_NEEDS = {"gs": extra("gcs"), "s3": "pip install s3fs", "az": "pip install adlfs"}

# Do not cache listings of a store, so that new files of other processes are seen.
for _name in ("gs", "gcs", "s3", "az"):
    fsspec.config.conf.setdefault(_name, {}).setdefault("use_listings_cache", False)


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is in an object store."""
    return os.fspath(path).startswith(_SCHEMES)


def path_of(text: str | os.PathLike[str]) -> Path:
    """Makes a path from text. `~` is the home directory.

    Raises:
        InputError: the kind of store is unknown, or its package is not installed.
    """
    name = os.fspath(text)
    scheme, separator, _ = name.partition("://")
    if separator and not is_remote(name):
        raise InputError(
            f"{name}: {scheme}:// is not known; give a local path, or one that begins with "
            f"{', '.join(_SCHEMES)}"
        )
    if separator:
        try:
            fsspec.get_filesystem_class(scheme)
        except ImportError as error:
            raise InputError(
                f"{name} needs a package that is not installed; {_NEEDS[scheme]}"
            ) from error
        return Path(name)
    return Path(name).expanduser()


def printable(name: str) -> str:
    """Escapes the bytes of a file name that are not UTF-8, so that it can be printed."""
    return name.encode(errors="backslashreplace").decode()


def check_reachable(option: str, path: Path) -> bool:
    """Whether a path in a store exists.

    Args:
        option: the option that named the path, for error messages.
        path: in a store.

    Raises:
        InputError: the store cannot be reached or refuses access.
    """
    try:
        path.stat()  # exists() of some stores returns False when access is refused
        return True
    except FileNotFoundError:
        return False
    except Exception as error:  # each store has its own classes of errors
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{option} {path} cannot be reached ({reason}); check its name, the network and the "
            "credentials of this machine"
        ) from error


def make_folder(folder: Path) -> None:
    """Makes a folder and its parents. Does nothing in a store, which has no folders."""
    if not is_remote(folder):
        folder.mkdir(parents=True, exist_ok=True)


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes a file that no reader ever sees incomplete. Its folder must exist.

    On a local disk, a temporary file is written beside the target and then renamed.
    """
    data = content.encode() if isinstance(content, str) else content
    if is_remote(path):
        Path(path).write_bytes(data)
        return
    folder, name = os.path.split(os.fspath(path))
    handle, temporary = tempfile.mkstemp(dir=folder or ".", prefix=f".{name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_range(path: str, start: int, end: int) -> bytes:
    """Reads the bytes of a file from `start` up to, but not including, `end`."""
    if is_remote(path):
        filesystem, name = fsspec.core.url_to_fs(path)
        data: bytes = filesystem.cat_file(name, start=start, end=end)
        return data
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(end - start)


def files_below(folder: Path) -> list[Path]:
    """Lists every file in a folder and its subfolders, sorted by path."""
    return sorted(Path(root) / name for root, _, names in folder.walk() for name in names)
