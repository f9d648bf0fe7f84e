from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from vtpbench.harness.records.environment import (
    DECIDING_FILES,
    DECIDING_FOLDERS,
    IDENTITY,
    code_hash,
    environment,
    git_commit,
    version_of,
    versions,
)
from vtpbench.harness.records.record import CODE


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True).stdout.strip()


def test_versions_are_those_that_are_installed():
    assert tuple(versions()) == (*IDENTITY, CODE)
    assert versions()["torch"] == version_of("torch")
    assert version_of("no-such-distribution") is None


def test_an_edit_of_what_decides_numbers_changes_the_hash_of_the_code(tmp_path: Path):
    root = Path(__file__).parents[3]
    assert versions()[CODE] == code_hash(root)
    for part in ("harness", "pruners"):
        shutil.copytree(root / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    assert code_hash(tmp_path) == code_hash(root)
    deciding = [file for folder in DECIDING_FOLDERS for file in (tmp_path / folder).rglob("*.py")]
    for file in [*deciding, *(tmp_path / name for name in DECIDING_FILES)]:
        before, text = code_hash(tmp_path), file.read_text()
        file.write_text(f"{text}# edited\n")
        assert code_hash(tmp_path) != before, file
        file.write_text(text)
    before = code_hash(tmp_path)
    for name in ("harness/cli/main.py", "harness/show/show.py"):
        (tmp_path / name).write_text("# says things in another way\n")
    assert code_hash(tmp_path) == before


def test_a_new_module_of_a_deciding_folder_counts_by_itself(tmp_path: Path):
    root = Path(__file__).parents[3]
    for part in ("harness", "pruners"):
        shutil.copytree(root / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    before = code_hash(tmp_path)
    (tmp_path / "harness/pruning/new.py").write_text("")
    assert code_hash(tmp_path) != before


def test_a_record_can_say_what_it_ran_on():
    found = environment("cpu")
    assert found.device.endswith("(cpu)")
    assert {*IDENTITY, CODE, "python"} == set(found.versions)


def test_the_commit_of_a_checkout_with_and_without_changes(tmp_path: Path):
    git(tmp_path, "init")
    assert git_commit(tmp_path) is None
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-m", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert git_commit(tmp_path) == head
    (tmp_path / "untracked.py").write_text("1")
    assert git_commit(tmp_path) == head
    (tmp_path / "a.py").write_text("2")
    assert git_commit(tmp_path) == f"{head}+changes"


def test_an_installed_copy_inside_of_a_checkout_has_no_commit(tmp_path: Path):
    git(tmp_path, "init")
    (tmp_path / "site-packages").mkdir()
    assert git_commit(tmp_path / "site-packages") is None
