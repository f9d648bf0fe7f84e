"""Files that users name, and writing that is whole or not at all; trouble becomes one line that names its mend."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from vtpbench.pruners.errors import UserError

_NO_SPACE = "free some space and run the same command again; what is finished is kept"
_NO_ACCESS = "choose another folder with --out, or change its permissions"
_IN_THE_WAY = "move the file that is in the way, or choose another folder with --out"
_MENDS = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: "raise the limit on file sizes (ulimit -f) and run the same command again; what is finished is kept",
    errno.EACCES: _NO_ACCESS,
    errno.EPERM: _NO_ACCESS,
    errno.EROFS: _NO_ACCESS,
    errno.EEXIST: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EISDIR: _IN_THE_WAY,
}


class StorageError(UserError):
    """The disk refuses; since nothing can be recorded any more, the run stops."""


def is_hub_id(name: str) -> bool:
    """Whether a name is a hub id, `owner/name`, rather than the path of a folder."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def locate(value: str, context: Mapping[str, Any] | None) -> Path:
    """Absolute path of a file or folder that YAML names: from the YAML file's folder, else from the working folder.

    `context` is that of a validation; its `folder` is the file's.
    """
    path = Path(os.path.expanduser(value))  # names no error for a user that does not exist, as the next for a path too long
    beside = Path((context or {}).get("folder", "")) / path
    return Path(os.path.realpath(beside if os.path.exists(beside) or not os.path.exists(path) else path))


def read_text(path: Path) -> str:
    """Read a file as UTF-8; raises `UserError` where that fails."""
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for
            raise UserError(f"cannot read {path}: it is no file")
        return path.read_text(encoding="utf-8")
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise UserError(f"cannot read {path}: it is not UTF-8 text") from e
    except ValueError as e:  # a path with a NUL
        raise UserError(f"cannot read {str(path)!r}: {e}") from e


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failing write below into a `StorageError` that names the path and the mend."""
    try:
        yield
    except OSError as e:
        mend = _MENDS.get(e.errno or 0, "choose another folder with --out")
        raise StorageError(f"cannot write {path}: {e.strerror or e}; {mend}") from e


def prepare(folder: Path) -> None:
    """Make a folder and try it; raises `StorageError` where it cannot be written."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0")


def prepare_file(file: Path) -> None:
    """Make a file's folder and try it; raises `StorageError` now, rather than after the work, where it cannot be written."""
    _refuse_folder(file)
    prepare(file.parent)


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file in one step: readers see the old or the new content, never a part of it.

    Raises `StorageError`, and leaves the old file as it was, where the disk refuses.
    """
    _refuse_folder(path)
    # One fixed name: a part that a killed run left behind is overwritten by the next attempt instead of piling up.
    part = path.with_name(f"{path.name}.part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Keep a damaged file, or a folder in its place, under a name of its own: `.bad1`, `.bad2` ...; returns that."""
    aside = next(p for i in count(1) if not os.path.lexists(p := path.with_suffix(f".bad{i}")))
    with writing(aside):
        path.rename(aside)
    return aside


def read_regular(path: Path) -> bytes | None:
    """Read a file; None where there is none that can be read, such as a folder, a pipe or a link that leads nowhere."""
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError:
        return None


def _refuse_folder(file: Path) -> None:
    with writing(file):
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
