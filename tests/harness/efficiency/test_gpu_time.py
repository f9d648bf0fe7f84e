from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import vtpbench.harness.models.configs
from vtpbench.harness.efficiency.flops import Workload
from vtpbench.harness.efficiency.gpu_memory import GpuMemory
from vtpbench.harness.efficiency.gpu_time import GpuClock, TypicalPrompt
from vtpbench.harness.efficiency.gpus import find_gpu, gpu_table
from vtpbench.harness.models.dimensions import Dimensions
from vtpbench.harness.models.dummy import dummy_names, read_configuration
from vtpbench.harness.models.memory import parameters
from vtpbench.harness.records.efficiency import load_efficiency
from vtpbench.pruners.base import Grid
from vtpbench.pruners.errors import UserError

CONFIGS = Path(str(vtpbench.harness.models.configs.__file__)).parent
RECORD = "llava-1.5-7b-batch1-3fe69d4242a7d9bc.efficiency.json"
BEFORE = 35


def clock(name: str = "h200", launch_ms: float | None = None) -> GpuClock:
    """LLaVA-1.5-7B on a GPU, by default as launched by the host of the measurements."""
    reached = gpu_table().measured
    reached = reached if launch_ms is None else reached.model_copy(update={"launch_ms": launch_ms})
    return GpuClock(find_gpu(name), reached, Dimensions.from_config(read_configuration(CONFIGS / "llava-1.5-7b.json")))


def prompt(tokens: int, new: int = 1, shared_by: float = 1.0, text: int = 60) -> TypicalPrompt:
    return TypicalPrompt(Workload(Grid(1, 24, 24), (float(tokens),) * 32, text, new=new), BEFORE, shared_by)


@pytest.mark.parametrize(
    ("batch", "tokens", "prefill_ms", "step_ms"),
    [(1, 576, 19.1, 7.5), (1, 64, 7.9, 7.2), (16, 576, 295, 12.1), (16, 64, 57, 9.1), (64, 576, 1152, 23.9), (64, 64, 225, 12.1)],
)
def test_the_devices_own_times_are_those_of_an_h200(batch: int, tokens: int, prefill_ms: float, step_ms: float) -> None:
    device = clock(launch_ms=1e-3)
    first, two = device.batch(prompt(tokens), batch), device.batch(prompt(tokens, new=2), batch)
    assert 1000 * first == pytest.approx(prefill_ms, rel=0.15)
    assert 1000 * (two - first) == pytest.approx(step_ms, rel=0.15)


@pytest.mark.parametrize(("batch", "tokens", "ms"), [(16, 576, 49), (64, 576, 178), (16, 64, 22), (64, 64, 70)])
def test_questions_behind_a_prefix_take_what_they_took_on_an_h200(batch: int, tokens: int, ms: float) -> None:
    """Each in a row of its own, as it was measured."""
    device = clock(launch_ms=1e-3)
    assert 1000 * device.questions(prompt(tokens), batch, batch) == pytest.approx(ms, rel=0.25)
    assert device.questions(prompt(576), 64, 16) < device.questions(prompt(576), 64, 64) / 2


@pytest.mark.parametrize(
    ("batch", "tokens", "rate"), [(1, 576, 6.9), (1, 64, 9.7), (16, 576, 30), (16, 64, 65), (64, 576, 36.5), (64, 64, 87)]
)
def test_questions_a_second_are_those_of_an_h200_to_a_third(batch: int, tokens: int, rate: float) -> None:
    """64 pictures with three questions each, four tokens an answer, prefilled whole; pictures were prepared in turn."""
    machine = clock()
    pictures = 64 * (machine.tower(prompt(576).work) + machine.reached.picture_ms / 1000)
    seconds = 192 / batch * machine.batch(prompt(tokens, new=4), batch) + pictures
    assert 192 / seconds == pytest.approx(rate, rel=1 / 3)


def test_the_tower_and_the_memory_are_those_of_an_h200(request: pytest.FixtureRequest) -> None:
    assert 64_000 * clock().tower(prompt(576).work) == pytest.approx(62, rel=0.05)
    vanilla = load_efficiency(request.config.rootpath / "results" / "published" / "efficiency" / RECORD).rows[0]
    assert vanilla.peak_bytes is not None
    needed = GpuMemory(clock().dimensions).at_peak(prompt(576, new=8, text=32).work, 1)
    assert needed == pytest.approx(vanilla.peak_bytes, rel=0.02)


@pytest.mark.parametrize("name", dummy_names())
def test_weights_are_counted_to_two_thousandths(name: str) -> None:
    config = read_configuration(CONFIGS / f"{name}.json")
    assert Dimensions.from_config(config).parameters == pytest.approx(parameters(config), rel=2e-3)


def test_other_gpus_scale_by_their_data_sheets() -> None:
    times = {gpu.name: clock(gpu.name, launch_ms=1e-3).batch(prompt(576), 64) for gpu in gpu_table().gpus}
    assert times["a100"] / times["h200"] == pytest.approx(989 / 312, rel=0.01)
    assert times["b200"] < times["h200"] < times["a100"] < times["l4"]
    bound = {name: clock(name).batch(prompt(64), 1) for name in ("b200", "h200")}
    assert bound["b200"] == bound["h200"] == 0.037, "the host launches no faster"


def test_work_costs_more_where_there_is_more_of_it() -> None:
    device = clock(launch_ms=1e-3)
    assert device.batch(prompt(64), 16) < device.batch(prompt(128), 16) < device.batch(prompt(576), 16)
    assert device.batch(prompt(576, shared_by=8), 16) < device.batch(prompt(576), 16)
    skipped = replace(prompt(0).work, tower=())
    assert device.tower(skipped) == 0


@pytest.mark.parametrize(("batch", "tokens", "small"), [(1, 576, True), (16, 64, True), (16, 576, False)])
def test_what_is_replayed_waits_for_no_host(batch: int, tokens: int, small: bool) -> None:
    launched, replayed, device = clock(), replace(prompt(tokens, new=3), graphs=True), clock(launch_ms=1e-3)
    alone, first = device.batch(replayed, batch), replace(prompt(tokens), graphs=True)
    waits = 0 if small else launched.batch(first, batch) - device.batch(first, batch)
    assert launched.batch(replayed, batch) == pytest.approx(alone + waits)
    assert launched.batch(prompt(tokens, new=3), batch) >= alone + 0.04, "two steps are launched in 74 ms"


def test_questions_behind_a_prefix_are_launched() -> None:
    shared = replace(prompt(64, shared_by=2.0), graphs=True)
    assert clock().questions(shared, 2, 2) == 0.037


def test_rows_of_several_questions_read_fewer_prefixes_and_are_not_full() -> None:
    device, asked = clock(launch_ms=1e-3), prompt(576, shared_by=8.0)
    prefixes = 64 / 8 * device.batch(prompt(576, text=BEFORE), 1)
    alone, best = device.questions(asked, 64, 64), device.questions(asked, 64, 8)
    assert best < device.batch(asked, 64) - prefixes < (alone + best) / 2


@pytest.mark.parametrize("shared_by", [1.0, 8.0])
def test_a_cached_system_prompt_is_read_and_not_computed(shared_by: float) -> None:
    device, whole = clock(launch_ms=1e-3), prompt(64, shared_by=shared_by)
    shorter = replace(prompt(64, text=60 - BEFORE, shared_by=shared_by), before=0)
    assert device.batch(shorter, 64) < device.batch(replace(whole, cached=True), 64) < device.batch(whole, 64)


def test_a_batch_that_would_gain_nothing_is_prefilled_whole() -> None:
    device = clock()
    assert device.batch(prompt(576, shared_by=1.05), 16) == device.batch(prompt(576), 16)


def test_an_unknown_gpu_names_the_known() -> None:
    assert find_gpu("H100").title == "NVIDIA H100 SXM"
    with pytest.raises(UserError, match=r"--gpu h1000: did you mean 'h100'\?$"):
        find_gpu("h1000")
    with pytest.raises(UserError, match=r"--gpu radeon: known: a100, a100-40, .*, rtx4090$"):
        find_gpu("radeon")
