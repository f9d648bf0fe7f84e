"""Writing that is whole or not at all; trouble with the disk becomes one line that names its mend."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file in one step: readers see the old or the new content, never a part of it.

    Raises `StorageError`, and leaves the old file as it was, where the disk refuses.
    """
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
