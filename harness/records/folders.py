"""Where results lie below a folder."""

from __future__ import annotations

from pathlib import Path


def stores(folder: Path) -> list[Path]:
    """Folder of one suite's results, or those of all suites below."""
    return [path.parent for path in sorted(folder.rglob("records")) if path.is_dir()]
