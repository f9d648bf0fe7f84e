"""The examples that pages walk through: pages show their files, and they give what pages print."""

import re
import shutil
import sys
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest

import vtpbench

documents = SimpleNamespace(**run_path(str(Path(__file__).with_name("documents.py"))))
ROOT = documents.ROOT


def shown(page: str) -> list[str]:
    return [block.text for block in documents.blocks() if block.page.name == page]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the examples, and pack the ten pictures."""
    ours = shutil.ignore_patterns("*.parquet", "adapter", "merged", "results")
    folder = Path(shutil.copytree(ROOT / "examples", tmp_path_factory.mktemp("copy") / "examples", ignore=ours))
    run_path(str(folder / "own_benchmark" / "pack.py"))
    return folder


@pytest.mark.parametrize(
    ("page", "file"),
    [
        ("own_benchmark.md", "own_benchmark/pack.py"),
        ("own_benchmark.md", "own_benchmark/task/photos.yaml"),
        ("own_benchmark.md", "own_benchmark/task/utils.py"),
        ("own_benchmark.md", "own_benchmark/suite.yaml"),
        ("own_model.md", "own_model/suite.yaml"),
    ],
)
def test_pages_show_the_files_of_the_examples(page: str, file: str) -> None:
    assert (ROOT / "examples" / file).read_text() in shown(page)


def test_the_questions_are_as_the_page_begins_them() -> None:
    (begin,) = (text for text in shown("own_benchmark.md") if text.startswith("picture,"))
    assert (ROOT / "examples/own_benchmark/questions.csv").read_text().startswith(begin)


def test_ten_pictures_give_the_table_of_the_page(examples: Path, tmp_path: Path) -> None:
    results = vtpbench.run(str(examples / "own_benchmark" / "suite.yaml"), out=str(tmp_path), device="cpu", progress=False)
    frame = results.to_pandas()
    measured = {(row.label, f"{row.observed_tokens:.1f}"): row.score for row in frame.itertuples()}
    text = (ROOT / "docs" / "own_benchmark.md").read_text()
    rows = re.findall(r"^\| (\w+) +\| +([\d.]+) \| +([\d.]+)<br>", text, re.MULTILINE)
    printed = {(label, tokens): float(score) for label, tokens, score in rows}
    assert len(printed) == 7
    assert measured.keys() == printed.keys()
    one_question = 100 / 30  # may fall the other way where another processor rounds otherwise
    assert all(abs(measured[row] - score) < 1.1 * one_question for row, score in printed.items())


def test_an_adapter_and_its_merged_form_answer_alike(examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["finetune.py", "2"])
    run_path(str(examples / "own_model" / "finetune.py"))
    adapter, merged = (vtpbench.load(examples / "own_model" / name, device="cpu") for name in ("adapter", "merged"))
    picture = examples / "own_benchmark" / "pictures" / "03.png"
    questions = ["How many triangles are there?", "What shape is red?", "Which character is red?"]
    assert adapter.answers([picture] * 3, questions) == merged.answers([picture] * 3, questions)
