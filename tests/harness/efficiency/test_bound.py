"""Rows that are made to wait, to calculate and to copy are called so."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from vtpbench.harness.efficiency.ceilings import measure_ceilings
from vtpbench.harness.efficiency.options import pruner_rows
from vtpbench.harness.efficiency.profile import ProfileProtocol, profile
from vtpbench.harness.efficiency.rows import PrunerRow
from vtpbench.harness.models.dummy import describe_dummy
from vtpbench.harness.models.tiny import TINY
from vtpbench.harness.records.record import BudgetInfo, PrunerInfo
from vtpbench.pruners.base import Pruner, TokenView
from vtpbench.report.efficiency.table import table_of

INFO = describe_dummy("llava-1.5-7b", dtype="float32").info


@dataclass(frozen=True)
class Working(Pruner):
    """Do something at length before choosing."""

    work: Callable[[], object] = field(default=lambda: None)

    def score(self, view: TokenView) -> torch.Tensor:
        self.work()
        return view.features[..., 0]


def test_what_holds_a_row_back_is_named() -> None:
    square, large = torch.randn(1024, 1024), torch.randn(1 << 25)
    target = torch.empty_like(large)
    works = {
        "sleeps": lambda: time.sleep(0.3),
        "multiplies": lambda: [square @ square for _ in range(16)],
        "copies": lambda: [target.copy_(large) for _ in range(16)],
    }
    rows = [
        PrunerRow(
            PrunerInfo(name=name, label=name, options={}, code="0", distribution="theirs"), Working(work), BudgetInfo(tokens=10)
        )
        for name, work in works.items()
    ]
    protocol = ProfileProtocol("Why?", (1,), picture=(24, 20), new_tokens=1, warmup=3, repeats=3)
    (record,) = profile(TINY["llava"](), INFO, [*pruner_rows([]), *rows], protocol, "tiny", lambda *_: None)
    table = table_of(record)
    assert {row.pruner: row.bound.by for row in table.rows[1:] if row.bound} == {
        "sleeps": "launch",
        "multiplies": "compute",
        "copies": "memory",
    }
    found = {row.pruner: row.bound for row in table.rows}
    assert found["sleeps"].busy < 0.3
    assert found["multiplies"].compute > 0.3
    assert found["copies"].memory > 0.3


def test_ceilings_are_those_of_the_number_format() -> None:
    single = measure_ceilings(torch.device("cpu"), torch.float32)
    assert 0.001 < single.tflops_per_s < 100
    assert 0.1 < single.gb_per_s < 10_000
    double = measure_ceilings(torch.device("cpu"), torch.float64)
    assert double.tflops_per_s < single.tflops_per_s
