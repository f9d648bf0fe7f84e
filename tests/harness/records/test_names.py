from __future__ import annotations

import json
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from vtpbench.harness.gather.merge import merge
from vtpbench.harness.host.checksummed import Frozen, dump_checksummed
from vtpbench.harness.records.cell import KeptTokens
from vtpbench.harness.records.efficiency import EfficiencyRecord
from vtpbench.harness.records.record import Record
from vtpbench.harness.records.store import Store
from vtpbench.pruners.errors import UserError

scripted = SimpleNamespace(**run_path(str(Path(__file__).parents[1] / "scripted_run.py")))
LEADING_ELSEWHERE = [
    "../victim",
    "/tmp/victim",
    "..",
    ".",
    "",
    "a/b",
    "a\\b",
    "a\0b",
    "a\nb",
    "a\n",
    "-rf",
    "\x1b[31m",
    "x" * 300,
    "é" * 120,
]


def record() -> Record:
    cell = scripted.make_cell()
    facts = {name: getattr(cell, name) for name in ("model", "pruner", "budget", "benchmark", "seed")}
    return Record(cell_id=cell.id, suite="toy", status="infeasible", environment=scripted.ENVIRONMENT, created="2026", **facts)


def forged(**change: object) -> str:
    """Text of a record with other values and a checksum that is right: whoever edits a file can compute one."""

    class Anything(Frozen, extra="allow"):
        pass

    return dump_checksummed(Anything.model_validate({**record().model_dump(mode="json"), **change}))


@pytest.mark.parametrize("name", LEADING_ELSEWHERE)
def test_a_suite_s_name_in_a_record_leads_to_no_other_folder(name: str, tmp_path: Path) -> None:
    source = tmp_path / "source" / "toy" / "records"
    source.mkdir(parents=True)
    (source / f"{record().cell_id}.json").write_text(forged(suite=name))
    victim = tmp_path / "victim" / "records"
    victim.mkdir(parents=True)
    warnings: list[str] = []
    merge([tmp_path / "source"], tmp_path / "out", warnings.append)
    assert [str(source / record().cell_id) in line and "suite" in line for line in warnings] == [True]
    assert not (tmp_path / "out").exists()
    assert list(victim.iterdir()) == []


@pytest.mark.parametrize("name", ["../../victim", "0123456789ABCDEF", "0123456789abcdef\n", "x", ""])
def test_a_cell_s_id_is_sixteen_digits(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "toy" / "records"
    folder.mkdir(parents=True)
    (folder / "x.json").write_text(forged(cell_id=name))
    warnings: list[str] = []
    assert Store(tmp_path / "toy", warnings.append).records() == []
    assert [str(folder / "x.json") in line for line in warnings] == [True]


@pytest.mark.parametrize(
    "name", ["../../victim", "0123456789abcdef-9x9/..", "0123456789abcdef-9x9\n", "", "0123456789abcdef-٣x٣", 5, None]
)
def test_a_picture_s_name_is_a_hash_and_a_size(name: object) -> None:
    with pytest.raises(ValueError, match="is no name of a picture"):
        KeptTokens(name, 4, (), ())  # type: ignore[arg-type]


def test_suites_and_efficiency_records_have_the_same_rule(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: ../victim\nmodels: [org/m]\nmatrix: {pruners: [vanilla], benchmarks: [pope]}\n")
    from vtpbench.harness.suite.suite import load

    with pytest.raises(UserError, match=r"a\.yaml:1: name: string should match pattern"):
        load(tmp_path / "a.yaml")
    published = next((Path(__file__).parents[3] / "results/published/efficiency").glob("*.json"))
    body = json.loads(published.read_text())
    del body["checksum"]
    assert EfficiencyRecord.model_validate(body)
    with pytest.raises(ValidationError, match="suite"):
        EfficiencyRecord.model_validate({**body, "suite": "../victim"})
