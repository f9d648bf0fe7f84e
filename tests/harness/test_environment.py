from __future__ import annotations

import subprocess
from pathlib import Path

from vtpbench.harness.environment import IDENTITY, environment, git_commit, version_of, versions


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True).stdout.strip()


def test_versions_are_those_that_are_installed():
    assert tuple(versions()) == IDENTITY
    assert versions()["torch"] == version_of("torch")
    assert version_of("no-such-distribution") is None


def test_a_record_can_say_what_it_ran_on():
    found = environment("cpu")
    assert found.device.endswith("(cpu)")
    assert {*IDENTITY, "python"} == set(found.versions)


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
