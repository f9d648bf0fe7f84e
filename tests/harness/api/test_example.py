"""The example runs, and the page that walks through it shows its code and what it prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT, PAGE = ROOT / "examples" / "python_api.py", ROOT / "docs" / "python.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)\n```$", PAGE.read_text(), flags=re.M | re.S)


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("example")
    shown = subprocess.run([sys.executable, str(SCRIPT), str(folder)], cwd=folder, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout.splitlines()


def test_the_page_shows_the_code_of_the_example() -> None:
    cells = [part.partition("\n")[2].strip() for part in SCRIPT.read_text().split("# %%")[1:]]
    assert [block.strip() for block in blocks("python")] == cells


def test_the_example_prints_what_the_page_shows(printed: list[str]) -> None:
    shown = [line for block in blocks("text") for line in block.splitlines()]
    drawn = re.compile("[#.]+")  # which tokens stay may differ where scores are all but equal
    assert [line for line in shown if not drawn.fullmatch(line)] == [line for line in printed if not drawn.fullmatch(line)]
    kept = "".join(line for line in printed if drawn.fullmatch(line))
    assert len(kept) == 144
    assert kept.count("#") <= 48
