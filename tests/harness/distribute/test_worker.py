"""One worker alone: what becomes of it where its device fails."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vtpbench.harness.distribute import worker as module
from vtpbench.harness.distribute.messages import AskPart, NewAnswers, Opened, OpenSweep, PartDone
from vtpbench.harness.distribute.parts import Part
from vtpbench.harness.distribute.worker import Worker
from vtpbench.harness.host.device import DeviceLost
from vtpbench.harness.run.job import RunOptions, make_job

MATRIX = "matrix={pruners: [random], budgets: [12], seeds: [0], benchmarks: [demo-exist]}"


def test_a_device_that_fails_in_a_part_ends_the_worker_and_does_not_finish_the_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = RunOptions(tmp_path, settings=[MATRIX], limit=4)
    cells = tuple(cell.id for cell in make_job("demo", options, pytest.fail).cells)
    worker = Worker("demo", options, "cpu")
    (opened,) = (event for event in worker.do(OpenSweep(cells)) if isinstance(event, Opened))
    part = AskPart(Part(0, len(opened.samples), cells))
    told = list(worker.do(part))
    assert isinstance(told[-1], PartDone)
    assert sum(len(event.answers) for event in told if isinstance(event, NewAnswers)) == 4 * len(cells)

    def failed(device: torch.device) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCompile with ...")

    monkeypatch.setattr(module, "refuse_failed", failed)
    with pytest.raises(DeviceLost, match=r"the device failed \(CUDA error: an illegal memory access was encountered\)"):
        list(worker.do(part))
