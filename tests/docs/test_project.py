"""What stands around the code: one version everywhere, forms and workflows that parse, and no secret."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_one_version_stands_everywhere() -> None:
    (version,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert f"version = {{{version}}}" in (ROOT / "docs" / "faq.md").read_text()
    released = rf"^## {re.escape(version)} \((unreleased|20\d\d-\d\d-\d\d)\)$"
    assert re.search(released, (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("form", FORMS, ids=lambda file: file.stem)
def test_a_form_asks_for_something_and_ids_differ(form: Path) -> None:
    read = yaml.safe_load(form.read_text())
    assert {"name", "description", "body"} <= read.keys()
    ids = [field["id"] for field in read["body"]]
    assert len(ids) == len(set(ids))
    assert any(field.get("validations", {}).get("required") for field in read["body"])


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_needs_no_secret_and_all_but_that_for_results_run_what_ci_runs(workflow: Path) -> None:
    text = workflow.read_text()
    jobs = yaml.safe_load(text)["jobs"]
    assert "secrets." not in text
    ours = any(step.get("run") == ".ci/run" for job in jobs.values() for step in job["steps"])
    assert ours or workflow.name == "results.yml"
    assert {name for name, job in jobs.items() if "id-token" in job.get("permissions", {})} <= {"publish"}


def test_offered_results_are_verified_folder_by_folder_away_from_what_came_along(tmp_path: Path) -> None:
    read = yaml.safe_load((ROOT / ".github" / "workflows" / "results.yml").read_text())
    assert read[True] == {"pull_request": {"paths": ["submissions/**"]}}  # YAML reads `on` as true
    assert read["permissions"] == {"contents": "read"}
    *_, step = read["jobs"]["verify"]["steps"]
    assert step["working-directory"] == "${{ runner.temp }}"

    offered, tools = tmp_path / "offered", tmp_path / "tools"
    for folder in (offered, tools, tmp_path / "temp"):
        folder.mkdir()
    (tools / "vtpbench").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tools / "vtpbench").chmod(0o755)

    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(offered), *who, *words], check=True, capture_output=True)

    def put(*names: str) -> None:
        for name in names:
            (offered / name).parent.mkdir(parents=True, exist_ok=True)
            (offered / name).write_text(name)
        git("add", "-A")

    def verified() -> list[str]:
        environment = {"PATH": f"{tools}:{os.environ['PATH']}", "GITHUB_WORKSPACE": str(tmp_path)}
        run = {"cwd": tmp_path / "temp", "env": environment, "check": True, "capture_output": True, "text": True}
        return subprocess.run(["bash", "-e", "-c", step["run"]], **run).stdout.split("\n")[:-1]

    git("init")
    put("submissions/old/demo/records/1.json", "submissions/gone/demo/records/1.json", "README.md")
    git("commit", "-m", "base")
    put(
        "submissions/a b/demo/records/1.json",
        "submissions/a b/other/records/2.json",
        "submissions/old/demo/samples/1.parquet",
        "x.py",
    )
    git("rm", "-r", "submissions/gone")
    git("commit", "-m", "offered")
    assert verified() == ["verify", str(offered / "submissions" / "a b"), str(offered / "submissions" / "old")]
    put("README.md", "y.py")
    git("commit", "-m", "nothing offered")
    assert verified() == []
