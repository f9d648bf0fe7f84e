"""Rows as CUDA graphs beside the same rows as they are, on a GPU that is only pretended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pretended_gpu import PretendedGpu
from rehearsal import on_pretended_gpu

from vtpbench.harness.efficiency import profile as profiling
from vtpbench.harness.efficiency import stages
from vtpbench.harness.efficiency.activity import Activity
from vtpbench.harness.efficiency.options import ProfileOptions, file_name, profile_models, pruner_rows
from vtpbench.harness.efficiency.profile import ProfileProtocol, profile
from vtpbench.harness.efficiency.rows import RowInProgress
from vtpbench.harness.efficiency.stages import Prompts, PrunerAtBudget
from vtpbench.harness.models.dummy import describe_dummy
from vtpbench.harness.models.tiny import tiny_llava
from vtpbench.harness.records.efficiency import STAGES, Ceilings, EfficiencyRecord, load_efficiency
from vtpbench.harness.records.record import BudgetInfo
from vtpbench.harness.suite.specs import PrunerSpec
from vtpbench.pruners.errors import Unsupported, UserError
from vtpbench.report.efficiency.table import build
from vtpbench.report.efficiency.text import render
from vtpbench.report.efficiency.throughput import throughputs

INFO = describe_dummy("llava-1.5-7b", dtype="float32").info.model_copy(update={"label": "tiny"})
ASKED = [(PrunerSpec(name="fastv", label="fastv"), BudgetInfo(tokens=10))]
PROTOCOL = ProfileProtocol("Why?", picture=(24, 20), new_tokens=2, warmup=1, repeats=1, graphs=True)


def counting(gpu: PretendedGpu) -> Callable[[Callable[[Callable[[str], None]], object]], dict[str, Activity]]:
    """Stand for torch's profiler: what the pretended GPU was given, a microsecond for each."""

    def watch(work: Callable[[Callable[[str], None]], object]) -> dict[str, Activity]:
        found: dict[str, Activity] = {}

        def mark(stage: str) -> None:
            before = found.get(stage, Activity())
            found[stage] = Activity(before.device_ms + gpu.launched / 1000, before.launches + gpu.launched)
            gpu.launched = 0

        gpu.launched = 0
        work(mark)
        return found

    return watch


@pytest.fixture(scope="module")
def records() -> Iterator[list[EfficiencyRecord]]:
    family = tiny_llava()
    with on_pretended_gpu(family) as gpu, pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "watch", counting(gpu))
        patch.setattr(profiling, "measure_ceilings", lambda device, dtype: Ceilings(tflops_per_s=1, gb_per_s=100))
        patch.setattr(profiling, "open_meter", lambda device: None)
        yield list(profile(family, INFO, pruner_rows(ASKED), PROTOCOL, "tiny", lambda *_: None))


def test_every_row_is_measured_in_both_modes_and_each_has_its_record(records: list[EfficiencyRecord], tmp_path: Path) -> None:
    launched, replayed = records
    assert (launched.load.graphs, replayed.load.graphs) == (False, True)
    assert launched.load == replayed.load.model_copy(update={"graphs": False})
    assert [(row.pruner, row.budget) for row in launched.rows] == [(row.pruner, row.budget) for row in replayed.rows]
    assert file_name(launched) != file_name(replayed)
    for record in records:
        (tmp_path / file_name(record)).write_text(record.dump())
        assert load_efficiency(tmp_path / file_name(record)) == record
    for one, other in zip(launched.rows, replayed.rows, strict=True):
        assert tuple(one.times_ms) == tuple(other.times_ms) == STAGES
        assert (one.observed, one.flops, one.kv_bytes) == (other.observed, other.flops, other.kv_bytes)
        assert sum(other.work[stage].moved_bytes for stage in STAGES) == sum(one.work[stage].moved_bytes for stage in STAGES)
        assert (one.replayed, one.not_replayed, other.not_replayed) == ([], {}, {})


def test_a_replay_is_one_launch_with_the_cuts_inside(records: list[EfficiencyRecord]) -> None:
    launched, replayed = records
    names = {row.pruner.label: set(row.replayed) for row in replayed.rows}
    assert names == {
        "vanilla": {"tower", "prefill", "decoding steps"},
        "random": {"tower", "prefill", "decoding steps"},
        "fastv": {"tower", "prefill with FastV", "decoding steps"},
    }
    for one, other in zip(launched.rows, replayed.rows, strict=True):
        for stage in ("vision", "prefill"):  # copies of what goes in and comes out are left
            assert other.work[stage].launches < one.work[stage].launches / 4
        assert other.work["decode"].launches < one.work["decode"].launches / 3, "keys and values are copied once"
    fastv = next(row for row in replayed.rows if row.pruner.label == "fastv")
    assert fastv.work["pruner"].launches == 0


def test_modes_are_told_apart_and_never_compared(records: list[EfficiencyRecord]) -> None:
    tables = build(records[::-1])
    assert [table.title for table in tables] == ["tiny, batch 1, random weights", "tiny, batch 1, as CUDA graphs, random weights"]
    assert [table.conditions["graphs"] for table in tables] == ["none", "replayed"]
    for table in tables:  # each against its own vanilla
        assert table.rows[0].ttft_speedup == 1
        assert table.break_even.keys() == table.device_break_even.keys() == {"random", "fastv"}
        assert all(row.bound is not None for row in table.rows)
    more = [record.model_copy(update={"load": record.load.model_copy(update={"batch": 4})}) for record in records]
    curves = throughputs(build([*records, *more]))
    assert [curve.conditions["graphs"] for curve in curves] == ["none", "replayed"]
    assert all(table.rows[0].ttft_ms is not None for table in tables)
    text = render(tables, "markdown")
    assert "no compilation, no graphs" in text
    assert "graphs of tower, prefill, decoding steps, prefill with FastV" in text


def test_what_was_not_replayed_is_said_below_the_table(records: list[EfficiencyRecord]) -> None:
    why = {"tower": "reads"}
    rows = [row.model_copy(update={"not_replayed": why}) for row in records[1].rows]
    (everywhere,) = build([records[1].model_copy(update={"rows": rows})])
    (somewhere,) = build([records[1].model_copy(update={"rows": [*records[1].rows[:-1], rows[-1]]})])
    assert everywhere.notes == ("tower: launched, not replayed, in all rows: reads",)
    assert somewhere.notes == ("tower: launched, not replayed, in fastv @ 10: reads",)


@pytest.mark.parametrize("graphs", [False, True])
def test_the_largest_batch_is_one_beside_the_graphs_of_all_rows(graphs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    family, lying = tiny_llava(), list[int]()

    def take(row: RowInProgress, prompts: Prompts) -> None:
        size = len(prompts.images)
        if size + sum(lying) > 24:
            raise torch.OutOfMemoryError("no room")
        if row.launched is not None:
            lying.append(size)

    monkeypatch.setattr(family, "forget_graphs", lying.clear)
    for name, stand_in in {
        "_run": take,
        "_settle": take,
        "_retries": lambda device: 0,
        "require_searchable": lambda device: None,
    }.items():
        monkeypatch.setattr(profiling, name, stand_in)
    rows = [RowInProgress(row, PrunerAtBudget(family, row.pruner, row.budget)) for row in pruner_rows(ASKED)]
    assert len(rows) == 3
    protocol = replace(PROTOCOL, batches=(1,), largest=True, graphs=graphs)
    assert profiling._batches(rows, protocol) == [1, 6 if graphs else 24]  # of one row, and the graphs of three


def test_a_row_that_dropped_out_launched_drops_out_replayed_for_the_same_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(row: RowInProgress, prompts: Prompts) -> None:
        raise Unsupported("not between newlines")

    family = tiny_llava()
    monkeypatch.setattr(profiling, "_run", refuse)
    row = pruner_rows(ASKED)[-1]
    launched = RowInProgress(row, PrunerAtBudget(family, row.pruner, row.budget))
    replayed = launched.as_graphs()
    profiling._measure([launched, replayed], PROTOCOL, 1, None, lambda *_: None)
    assert launched.dropped is not None
    assert (launched.dropped.status, launched.dropped.reason) == ("unsupported", "not between newlines")
    assert replayed.dropped == launched.dropped


def test_graphs_need_a_gpu(tmp_path: Path) -> None:
    order = ProfileOptions(suite="demo", device="cpu", out=tmp_path, protocol=PROTOCOL)
    with pytest.raises(UserError, match="--graphs replays CUDA graphs, and the device is cpu; leave it out"):
        profile_models(order, lambda *_: None)
    assert not list(tmp_path.iterdir())
