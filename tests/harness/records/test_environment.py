from __future__ import annotations

import shutil
import subprocess
from base64 import urlsafe_b64encode
from hashlib import sha256
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from vtpbench.harness.records.environment import (
    DECIDING_FILES,
    DECIDING_FOLDERS,
    IDENTITY,
    NUMERICS,
    code_hash,
    environment,
    git_commit,
    release_revision,
    revision_of,
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
    assert {*IDENTITY, CODE, "vtpbench", "python"} == set(found.versions)


def release(folder: Path, version: str = "0.1.0", origin: str = "") -> tuple[Distribution, Path]:
    """Lay out an installed release, with one source file of each part, as installers do."""
    root, facts = folder / "vtpbench", folder / f"vtpbench-{version}.dist-info"
    texts = {root / "harness" / "a.py": "a = 1\n", root / "pruners" / "b.py": "b = 2\n", facts / "METADATA": "Name: vtpbench\n"}
    if origin:
        texts[facts / "direct_url.json"] = origin
    for file, text in texts.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    hashes = {file: urlsafe_b64encode(sha256(file.read_bytes()).digest()).decode().rstrip("=") for file in texts}
    lines = [f"{file.relative_to(folder)},sha256={hashes[file]},{file.stat().st_size}\n" for file in texts]
    (facts / "RECORD").write_text("".join(lines))
    return Distribution.at(facts), root


def test_releases_of_one_revision_are_the_same_code(tmp_path: Path):
    revisions = {revision_of(*release(tmp_path / version, version)) for version in ("0.1.0", "0.1.1")}
    assert revisions == {f"numerics {NUMERICS}"}
    downloaded = release(tmp_path / "wheel", origin='{"archive_info": {}, "url": "file:///vtpbench-0.1.0-py3-none-any.whl"}')
    assert revision_of(*downloaded) == f"numerics {NUMERICS}"


@pytest.mark.parametrize(
    "origin", ['{"dir_info": {}, "url": "file:///here"}', '{"vcs_info": {"vcs": "git"}, "url": "https://x"}']
)
def test_what_was_installed_from_a_folder_or_a_repository_is_no_release(tmp_path: Path, origin: str):
    assert revision_of(*release(tmp_path, origin=origin)) is None


def test_a_release_with_a_source_file_that_was_edited_or_added_is_none(tmp_path: Path):
    edited, root = release(tmp_path / "edited")
    (root / "pruners" / "b.py").write_text("b = 3\n")
    assert revision_of(edited, root) is None
    added, root = release(tmp_path / "added")
    (root / "harness" / "new.py").touch()
    assert revision_of(added, root) is None


def test_a_checkout_is_no_release():
    assert release_revision() is None, "tests run in a checkout"
    assert len(versions()[CODE]) == 16


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
