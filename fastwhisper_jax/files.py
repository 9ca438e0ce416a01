"""Files on a local disk or in an object store (gs://, s3://, az://), by one kind of path.

An object store has no append and no rename, and folders only in its objects' names; an object
appears whole when it is complete. So files are written whole, in one go, and never changed.
"""

import os
import tempfile

import fsspec
from etils.epath import Path

from fastwhisper_jax.errors import InputError, extra

_SCHEMES = ("gs://", "s3://", "az://")
# How to install what provides each store, as the error says where it is absent.
_NEEDS = {"gs": extra("gcs"), "s3": "pip install s3fs", "az": "pip install adlfs"}

# What another process has just written must be seen: no listing of a store is kept.
for _name in ("gs", "gcs", "s3", "az"):
    fsspec.config.conf.setdefault(_name, {}).setdefault("use_listings_cache", False)


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path lies in an object store."""
    return os.fspath(path).startswith(_SCHEMES)


def path_of(text: str | os.PathLike[str]) -> Path:
    """The path that a text names; `~` is the home directory.

    Raises:
        InputError: it lies in a store of an unknown kind, or one whose package is not installed.
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
    """A name as text that can be written anywhere: what of it is no UTF-8 stands as an escape."""
    return name.encode(errors="backslashreplace").decode()


def check_reachable(option: str, path: Path) -> bool:
    """Whether anything lies at a path in a store.

    Raises:
        InputError: its store does not answer, or not to us.
    """
    try:
        path.stat()  # exists() of some stores is False as well where they refuse to answer
        return True
    except FileNotFoundError:
        return False
    except Exception as error:  # network, credentials: each store has its own classes
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{option} {path} cannot be reached ({reason}); check its name, the network and the "
            "credentials of this machine"
        ) from error


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it; in a store there are none to be made."""
    if not is_remote(folder):
        folder.mkdir(parents=True, exist_ok=True)


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes a file that no reader ever sees half of; its folder must be there.

    On a local disk it is written beside the target and renamed; an object appears whole anyway.
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
    """The bytes from `start` up to `end` of a file, and no others."""
    if is_remote(path):
        filesystem, name = fsspec.core.url_to_fs(path)
        data: bytes = filesystem.cat_file(name, start=start, end=end)
        return data
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(end - start)


def files_below(folder: Path) -> list[Path]:
    """Every file in a folder and in the folders in it, in the order of their names."""
    return sorted(Path(root) / name for root, _, names in folder.walk() for name in names)
