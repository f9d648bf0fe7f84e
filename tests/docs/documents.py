"""The pages of the repository: their blocks of code, the commands in them, their links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted((ROOT / "docs").glob("*.md"))
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:vtpbench|make) [^`\n]+)`")
COMMAND = re.compile(r"^(?:[A-Z_]+=\S+ )*((?:vtpbench|make|python|\.venv/bin/python) .+)$")


@dataclass(frozen=True)
class Block:
    """A fenced block of code; language as written, empty where none is."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        """Name it in the output of tests."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """All fenced blocks of some languages, of all where none is named."""
    found = [
        Block(page, text[: match.start()].count("\n") + 1, match[2], match[3])
        for page in PAGES
        for text in [page.read_text()]
        for match in FENCE.finditer(text)
    ]
    return [block for block in found if not languages or block.language in languages]


def commands(page: Path) -> Iterator[tuple[str, bool]]:
    """Each command that a page shows, and whether it stands in a block, to be run as it is, rather than in a sentence."""
    text = page.read_text()
    shell = [match[3] for match in FENCE.finditer(text) if match[2] in ("sh", "bash")]
    beside = FENCE.sub("", text)
    indented = "\n".join(line[4:] for line in beside.splitlines() if line.startswith("    "))
    for line in re.sub(r"\\\n\s*", "", "\n".join([*shell, indented])).splitlines():
        for part in line.split(";"):
            if match := COMMAND.match(part.strip()):
                yield match[1], True
    for match in INLINE.finditer(beside):
        yield match[1], False


def prose(page: Path) -> str:
    """Give a page without its code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ {4}.*$", "", FENCE.sub("", page.read_text()), flags=re.MULTILINE))
