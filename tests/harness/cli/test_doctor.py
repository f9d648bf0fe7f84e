from __future__ import annotations

import json
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

from vtpbench.harness.cli import doctor
from vtpbench.harness.cli.main import app
from vtpbench.harness.host import launcher
from vtpbench.harness.records.environment import version_of
from vtpbench.pruners.errors import UserError


def test_what_is_installed_here_is_fine():
    assert [finding for finding in doctor.installed(version_of) if finding.status != "ok"] == []
    assert list(doctor.requirements("vtpbench", version_of)) == []
    assert list(doctor.requirements("torchvision", version_of)) == []


def test_a_missing_lmms_eval_says_what_still_works():
    (finding,) = [f for f in doctor.installed(lambda name: None if name == "lmms-eval" else "1") if f.status != "ok"]
    assert (finding.topic, finding.status, finding.mend) == ("lmms-eval", "broken", "pip install lmms-eval")
    assert "run needs it, and so do plan and data for its own tasks; all other commands work without it" in finding.detail


def test_an_old_transformers_is_found_by_our_own_requirements():
    found = doctor.requirements("vtpbench", lambda name: "4.57.1" if name == "transformers" else version_of(name))
    (finding,) = found
    assert finding.topic == "transformers"
    needed = next(wanted for text in requires("vtpbench") or () if (wanted := Requirement(text)).name == "transformers")
    assert finding.detail == f"4.57.1, but vtpbench needs {needed}"
    assert finding.mend == f"pip install '{needed}'"


def test_versions_of_a_build_are_no_fault():
    assert list(doctor.requirements("vtpbench", lambda name: f"{version_of(name)}+cpu")) == []


def test_a_torchvision_that_does_not_fit_is_found_by_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    break_torchvision(tmp_path, monkeypatch)
    (finding,) = doctor.torchvision_pair()
    assert finding.status == "broken"
    assert "operator torchvision::nms does not exist" in finding.detail
    assert finding.mend == doctor.PAIR_MEND


def break_torchvision(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a torchvision before the real one that fails as one of another build does."""
    (folder / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_variables_of_a_launcher_are_named():
    assert list(doctor.launched({"HOME": "/"})) == []
    (finding,) = doctor.launched({"RANK": "0", "WORLD_SIZE": "2"})
    assert finding.status == "broken"
    assert "RANK=0, WORLD_SIZE=2" in finding.detail
    assert finding.mend is not None
    assert finding.mend.startswith("unset RANK WORLD_SIZE;")


@pytest.mark.parametrize(("variables", "refused"), [({"WORLD_SIZE": "2"}, True), ({"RANK": "1"}, True), ({"RANK": "0"}, False)])
def test_only_one_of_several_processes_is_refused(variables: dict[str, str], refused: bool, monkeypatch: pytest.MonkeyPatch):
    for name in launcher.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if refused:
        with pytest.raises(UserError, match=f"unset {next(iter(variables))}; start vtpbench without torchrun or accelerate"):
            launcher.refuse_launcher()
    else:
        launcher.refuse_launcher()


def test_the_disk_of_a_folder_that_is_yet_to_be_made(tmp_path: Path):
    (finding,) = doctor.disk(tmp_path / "new" / "results")
    assert finding.detail.startswith(f"{tmp_path}: ")


def test_the_command_lists_everything_and_fails_where_something_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    break_torchvision(tmp_path, monkeypatch)
    result = CliRunner().invoke(app, ["doctor", "--json", "--out", str(tmp_path)])
    findings = {finding["topic"]: finding for finding in json.loads(result.stdout)}
    assert {"python", "vtpbench", "torch", "lmms-eval", "cpu", "model cache", "data cache", "hub", "results"} <= set(findings)
    assert findings["torchvision pair"]["mend"] == doctor.PAIR_MEND
    assert result.exit_code == 1
    assert "mend: " in CliRunner().invoke(app, ["doctor", "--out", str(tmp_path)]).stdout
