from pathlib import Path

import pytest

from vtpbench.harness.host.generated_folder import MARKED, write_pages
from vtpbench.pruners.errors import UserError

MARK = "Pages of a test."


def test_pages_replace_those_of_last_time_and_other_files_stay(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "site"
    assert write_pages(folder, MARK, [("index.html", "1"), ("a/x.html", "2")]) == [folder / "index.html", folder / "a" / "x.html"]
    (folder / "CNAME").write_text("example.invalid")
    (folder / "mine").mkdir()
    (folder / "mine" / "notes.html").write_text("mine")
    write_pages(folder, MARK, [("index.html", "3"), ("a/y.html", "4")])
    found = {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}
    assert found.pop(MARKED).startswith(f"{MARK}\n")
    assert found == {"index.html": "3", "a/y.html": "4", "CNAME": "example.invalid", "mine/notes.html": "mine"}


@pytest.mark.parametrize("content", [{"notes.txt": "mine"}, {MARKED: "Another mark.\n"}, {"index.html": "mine"}])
def test_a_folder_of_somebody_elses_is_left_alone(tmp_path: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match="holds something else than pages that this command wrote; give an empty or a new folder"):
        write_pages(tmp_path, MARK, [("index.html", "1")])
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == content


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "site").write_text("mine")
    with pytest.raises(UserError, match="site holds something else"):
        write_pages(tmp_path / "site", MARK, [])
