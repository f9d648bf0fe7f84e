"""A folder whose pages one command writes anew each time: it takes no other folder for its own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vtpbench.harness.host.files import write_atomic, writing
from vtpbench.pruners.errors import UserError

MARKED = "READ_ME.txt"
"""File by whose first line such a folder is known again."""


def write_pages(folder: Path, mark: str, pages: Iterable[tuple[str, str]]) -> list[Path]:
    """Write pages, path and text of each, and remove those of last time that are none any more; returns their files.

    `mark` is the line by which the folder is known again. Files that are no pages stay, and so do folders without pages.

    Raises
    ------
    UserError : the folder holds something, and not the mark; nothing is written
    StorageError : the disk refuses

    """
    require_own(folder, mark)
    write_atomic(folder / MARKED, f"{mark}\nEvery page here is replaced when it is written again.\n".encode())
    written = []
    for name, text in pages:
        written.append(folder / name)
        write_atomic(written[-1], text.encode())
    places = {folder, *(file.parent for file in written)}
    for stale in sorted({page for place in places for page in place.glob("*.html")} - set(written)):
        with writing(stale):
            stale.unlink()
    return written


def require_own(folder: Path, mark: str) -> None:
    """Refuse a folder that is neither new, nor empty, nor marked; raises `UserError`."""
    if folder.is_dir():
        marked = folder / MARKED
        first = marked.read_text(encoding="utf-8", errors="replace").partition("\n")[0] if marked.is_file() else ""
        own = first == mark or not any(folder.iterdir())
    else:
        own = not folder.exists()
    if not own:
        raise UserError(f"{folder} holds something else than pages that this command wrote; give an empty or a new folder")
