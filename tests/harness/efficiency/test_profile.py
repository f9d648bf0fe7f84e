import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vtpbench.harness.efficiency.batch_size import largest, largest_for_all
from vtpbench.harness.efficiency.flops import Workload, count
from vtpbench.harness.efficiency.options import ProfileOptions, _of_suite, pruner_rows, read_protocol
from vtpbench.harness.efficiency.profile import ProfileProtocol, profile
from vtpbench.harness.efficiency.profiled_model import describe
from vtpbench.harness.efficiency.rows import PrunerRow, turn
from vtpbench.harness.efficiency.stages import Prompts, PrunerAtBudget, observe, run
from vtpbench.harness.efficiency.timers import HostTimer, start_timer
from vtpbench.harness.host.checksummed import BadRecord
from vtpbench.harness.host.device import DeviceLost
from vtpbench.harness.models.anyres import AnyRes
from vtpbench.harness.models.dimensions import Dimensions
from vtpbench.harness.models.dummy import describe_dummy, noise_picture
from vtpbench.harness.models.family import Family
from vtpbench.harness.models.load import find_checkpoint
from vtpbench.harness.models.tiny import TINY
from vtpbench.harness.records.efficiency import (
    BEFORE_FIRST_TOKEN,
    STAGES,
    SUFFIX,
    EfficiencyRecord,
    find_efficiency,
    load_efficiency,
)
from vtpbench.harness.records.record import BudgetInfo, PrunerInfo
from vtpbench.harness.records.store import Store
from vtpbench.harness.suite.specs import ModelSpec, PrunerSpec
from vtpbench.pruners.base import Grid, Pruner, Selection, TokenView, top
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.registry import build

INFO = describe_dummy("llava-1.5-7b", dtype="float32").info.model_copy(update={"label": "tiny"})
ASKED = [(PrunerSpec(name=name, label=name), BudgetInfo(tokens=tokens)) for name, tokens in (("fastv", 10), ("fastv", 3))]
PROTOCOL = ProfileProtocol("Why?", batches=(2,), picture=(24, 20), new_tokens=3, warmup=0, repeats=2)


@pytest.fixture(scope="module")
def families() -> dict[str, Family]:
    return {name: make() for name, make in TINY.items()}


@pytest.fixture(scope="module")
def record(families: dict[str, Family]) -> EfficiencyRecord:
    return measured(families["llava"], pruner_rows(ASKED))


def measured(
    family: Family, rows: Any, protocol: ProfileProtocol = PROTOCOL, progress: Any = lambda *_: None
) -> EfficiencyRecord:
    (found,) = profile(family, INFO, rows, protocol, "tiny", progress)
    return found


def test_vanilla_comes_first_and_random_is_always_there(record: EfficiencyRecord) -> None:
    rows = [(row.pruner.label, row.budget.label, row.status) for row in record.rows]
    assert rows == [
        ("vanilla", "all", "ok"),
        ("random", "10", "ok"),
        ("random", "3", "ok"),
        ("fastv", "10", "ok"),
        ("fastv", "3", "infeasible"),
    ]
    assert "budget" in str(record.rows[-1].reason) or "layer" in str(record.rows[-1].reason)


def test_counts_are_those_of_the_forward_pass(record: EfficiencyRecord) -> None:
    observed = [row.observed.per_layer for row in record.rows if row.observed is not None]
    assert observed == [[16.0] * 6, [10.0] * 6, [3.0] * 6, [16.0, 16.0, 7.0, 7.0, 7.0, 7.0]]


def test_every_repeat_has_every_stage(record: EfficiencyRecord) -> None:
    for row in record.rows[:-1]:
        assert tuple(row.times_ms) == STAGES
        assert all(len(times) == 2 and min(times) >= 0 for times in row.times_ms.values())
        first, total = row.summed_ms(BEFORE_FIRST_TOKEN), row.summed_ms()
        assert [whole - decode for whole, decode in zip(total, row.times_ms["decode"], strict=True)] == pytest.approx(first)


def test_cache_is_that_of_the_tokens_that_entered(record: EfficiencyRecord) -> None:
    heads, size, bytes_each, prompts = 2, 8, 4, 2
    for row in record.rows[:-1]:
        assert row.observed is not None
        entered = sum(row.observed.per_layer) + 6 * row.text_tokens
        assert row.kv_bytes == 2 * prompts * heads * size * bytes_each * entered
        assert row.masked_layers == record.rows[0].masked_layers
        assert row.peak_bytes is None


def test_operations_are_counted_from_what_was_observed(record: EfficiencyRecord, families: dict[str, Family]) -> None:
    dimensions = Dimensions.from_config(families["llava"].model.config)
    for row in record.rows[:-1]:
        assert row.observed is not None
        work = Workload(Grid(1, 4, 4), tuple(row.observed.per_layer), row.text_tokens, 3)
        for convention in ("exact", "table4"):
            expected = count(dimensions, work, convention)
            assert row.flops[convention].prefill == list(expected.prefill)
            assert row.flops[convention].decode == sum(expected.decode)
    assert [row.flops["exact"].pruner > 0 for row in record.rows[:-1]] == [False, False, False, True]


def spec(name: str, label: str = "", **options: Any) -> PrunerSpec:
    return PrunerSpec(name=name, label=label or name, options=options)


def test_random_is_there_at_every_budget_by_the_name_that_it_has() -> None:
    few, many = BudgetInfo(tokens=3), BudgetInfo(tokens=10)
    asked = [(spec("random", "Random"), many), (spec("fastv"), many), (spec("fastv"), few), (spec("vanilla", "LLaVA"), few)]
    rows = [(row.info.label, row.budget.label) for row in pruner_rows(asked)]
    assert rows == [("LLaVA", "all"), ("Random", "3"), ("Random", "10"), ("fastv", "10"), ("fastv", "3")]
    assert [row.info.label for row in pruner_rows([(spec("vanilla"), few)])] == ["vanilla", "random"]


def test_twins_are_one_row() -> None:
    budget = BudgetInfo(tokens=10)
    rows = pruner_rows([(spec("fastv"), budget), (spec("fastv", layer=2), budget), (spec("fastv", "early", layer=1), budget)])
    assert [row.info.label for row in rows] == ["vanilla", "random", "fastv", "early"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([(spec("fastv", layer=1), 0.5), (spec("fastv", layer=2), 0.5)], "two rows are called 'fastv'; give labels: '{label: "),
        ([(spec("fastv", layer=1), 0.5), (spec("fastv", layer=2), 0.2)], "two rows are called 'fastv'"),
        ([(spec("grid", "random"), 0.5)], "two rows are called 'random'"),
        ([(spec("grid", "vanilla"), 0.5)], "two rows are called 'vanilla'"),
        ([(spec("grid"), 0.33333), (spec("grid"), 0.33334)], "two budgets are called 33.33%; remove one"),
    ],
)
def test_rows_that_a_table_could_not_tell_apart_are_refused(asked: list[tuple[PrunerSpec, float]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        pruner_rows([(pruner, BudgetInfo(ratio=ratio)) for pruner, ratio in asked])


def stranger(pruner: Pruner, label: str = "theirs") -> PrunerRow:
    info = PrunerInfo(name=label, label=label, options={}, code="0", distribution="theirs")
    return PrunerRow(info, pruner, BudgetInfo(tokens=10))


@dataclass(frozen=True)
class Varying(Pruner):
    """Keep one more of each picture than of the one before."""

    @property
    def adaptive(self) -> bool:
        return True

    def reduce(self, view: TokenView) -> Selection:
        index = top(self.score(view), view.cut.keep)
        return Selection(index, valid=torch.stack([torch.arange(view.cut.keep) < 3 + int(key) for key in view.keys]))

    def score(self, view: TokenView) -> torch.Tensor:
        return view.features[..., 0]


def test_operations_are_of_the_batch_whose_tokens_stand_beside(families: dict[str, Family]) -> None:
    rows = [*pruner_rows([]), stranger(Varying())]
    row = measured(families["llava"], rows).rows[1]
    assert row.observed is not None
    assert row.observed.per_layer == [3.5] * 6  # 3 of the first picture, 4 of the second
    work = Workload(Grid(1, 4, 4), (3.5,) * 6, row.text_tokens, 3)
    expected = count(Dimensions.from_config(families["llava"].model.config), work)
    assert (row.flops["exact"].projector, row.flops["exact"].prefill) == (expected.projector, list(expected.prefill))


@dataclass(frozen=True)
class Breaking(Pruner):
    """Break when it is asked for the n-th time."""

    at: int
    error: Exception
    asked: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def score(self, view: TokenView) -> torch.Tensor:
        if next(self.asked) == self.at:
            raise self.error
        return view.features[..., 0]


@pytest.mark.parametrize("at", [1, 2, 3])  # counting, warming up, measuring
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("no\n such"), r"pruner 'theirs' broke with ValueError: no such, at test_profile\.py:\d+; .* check theirs"),
        (UserError("its file is damaged"), "its file is damaged"),
    ],
)
def test_a_pruner_that_breaks_is_a_row_that_says_so(families: dict[str, Family], at: int, error: Exception, reason: str) -> None:
    rows = [*pruner_rows(ASKED[:1]), stranger(Breaking(at, error))]
    record = measured(families["llava"], rows)
    assert [row.status for row in record.rows] == ["ok", "ok", "ok", "failed"]
    assert re.fullmatch(reason, record.rows[-1].reason)
    assert (record.rows[-1].times_ms, record.rows[-1].observed) == ({}, None)
    assert all(len(row.times_ms["prefill"]) == PROTOCOL.repeats for row in record.rows[:-1])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in families["llava"].model.modules())


def test_what_breaks_without_a_pruner_is_a_defect(families: dict[str, Family]) -> None:
    rows = [stranger(Breaking(1, ValueError("a defect")), "vanilla")]
    with pytest.raises(ValueError, match="a defect"):
        measured(families["llava"], rows)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(), torch.AcceleratorError("CUDA error: out of memory\n")])
@pytest.mark.parametrize(
    ("at", "message"), [(1, "theirs: a batch of 1 does not fit; use a smaller model"), (2, "theirs: a batch of 2 .* --batch max")]
)
def test_a_batch_that_does_not_fit_ends_the_run(families: dict[str, Family], at: int, message: str, error: Exception) -> None:
    rows = [*pruner_rows([]), stranger(Breaking(at, error))]
    with pytest.raises(UserError, match=message):
        measured(families["llava"], rows)


@pytest.mark.parametrize("rows", range(2, 9))
def test_turns_are_balanced(rows: int) -> None:
    turns = [turn(range(rows), repeat) for repeat in range(rows)]
    for place in range(rows):
        assert {order[place] for order in turns} == set(range(rows))
    pairs = [pair for order in turns for pair in itertools.pairwise(order)]
    most = max(pairs.count(pair) for pair in pairs)
    assert all(len(set(order)) == rows for order in turns)
    assert most == 1 + rows % 2


@dataclass(frozen=True)
class Noting(Pruner):
    """Write down that it is asked."""

    name: str
    notes: list[str]

    def score(self, view: TokenView) -> torch.Tensor:
        self.notes.append(self.name)
        return view.features[..., 0]


def test_rows_take_turns_in_changing_order(families: dict[str, Family]) -> None:
    notes: list[str] = []
    names = ["a", "b", "c"]
    rows = [*pruner_rows([]), *(stranger(Noting(name, notes), name) for name in names)]

    def progress(phase: str, done: int, total: int) -> None:
        if (phase, done) == ("batch 2: measure", 0):
            notes.clear()

    measured(families["llava"], rows, progress=progress)
    orders = [turn(["vanilla", *names], repeat) for repeat in range(PROTOCOL.repeats)]
    assert notes == [name for order in orders for name in order if name != "vanilla"]
    assert orders[0] != orders[1]


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize(("pruner", "budget", "inside"), [("vanilla", None, 0), ("visionzip", 10, 0), ("pyramiddrop", 10, 3)])
def test_stages_come_in_order_and_hooks_are_removed(
    families: dict[str, Family], name: str, pruner: str, budget: int | None, inside: int
) -> None:
    options = {"positions": "keep"} if pruner == "pyramiddrop" else {}
    family, budget = families[name], budget and (10 if name == "llava" else 20)
    marks: list[str] = []
    subject = PrunerAtBudget(family, build(pruner, options), BudgetInfo(tokens=budget))
    run(subject, Prompts([noise_picture(48, 48)], "Why?", 3), marks.append)
    runs = [stage for n, stage in enumerate(marks) if n == 0 or marks[n - 1] != stage]
    cuts = ["pruner", "prefill"] * inside
    assert runs == ["preprocess", "vision", "pruner", "projector", "prefill", *cuts, "decode"]
    assert marks.count("decode") == 1
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in family.model.modules())


@pytest.mark.parametrize(
    ("pruner", "vision"), [("tome", ["vision", "pruner"] * 3 + ["vision", "pruner"]), ("text-only", ["pruner"])]
)
def test_what_is_done_inside_the_tower_is_the_pruners_and_no_tower_takes_no_time(
    families: dict[str, Family], pruner: str, vision: list[str]
) -> None:
    marks: list[str] = []
    subject = PrunerAtBudget(families["llava"], build(pruner, {}), BudgetInfo(tokens=6))
    run(subject, Prompts([noise_picture(48, 48)], "Why?", 3), marks.append)
    runs = [stage for n, stage in enumerate(marks) if n == 0 or marks[n - 1] != stage]
    assert runs == ["preprocess", *vision, "projector", "prefill", "decode"]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in subject.family.model.modules())


@pytest.mark.parametrize("name", TINY)
def test_every_family_shows_its_cache_and_its_text(families: dict[str, Family], name: str) -> None:
    family = families[name]
    seen = observe(PrunerAtBudget(family, build("vanilla", {}), BudgetInfo()), Prompts([noise_picture(48, 48)], "Why?", 1))
    assert seen.text == len(family.token_ids(family.render("Why?", 1))) - 1
    assert seen.kv_bytes == 2 * 6 * 2 * family.decoder.layers[0].self_attn.head_dim * 4 * (seen.observed.original + seen.text)
    entering = seen.grid.entering if isinstance(seen.grid, AnyRes) else seen.grid.n
    assert (seen.peak_bytes, entering) == (None, seen.observed.original)


def test_an_image_without_a_token_left_counts_as_nothing(families: dict[str, Family]) -> None:
    subject = PrunerAtBudget(families["llava"], build("text-only", {}), BudgetInfo(tokens=5))
    observed = observe(subject, Prompts([noise_picture(20, 20)], "Why?", 2)).observed
    assert (observed.tokens, observed.original, observed.images) == (0, 16, 1)


def test_a_record_round_trips_and_tells_when_it_was_edited(record: EfficiencyRecord, tmp_path: Path) -> None:
    path = tmp_path / f"tiny{SUFFIX}"
    path.write_text(record.dump())
    assert load_efficiency(path) == record
    path.write_text(record.dump().replace('"repeats": 2', '"repeats": 3'))
    with pytest.raises(BadRecord, match="checksum does not match"):
        load_efficiency(path)
    path.write_text(record.model_copy(update={"schema_version": 9}).dump())
    warnings: list[str] = []
    assert find_efficiency(tmp_path, warnings.append) == []
    assert len(warnings) == 1
    assert "schema 9" in warnings[0]


def test_a_records_name_is_that_of_what_was_measured(record: EfficiencyRecord) -> None:
    again = record.model_copy(update={"created": "2026-01-01T00:00:00+00:00"})
    other = record.model_copy(update={"load": record.load.model_copy(update={"batch": 3})})
    assert record.id == again.id != other.id


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("machine", "threads"), 77),
        (("machine", "driver"), "570.1"),
        (("machine", "environment", "device"), "another"),
        (("machine", "environment", "versions", "vtpbench-code"), "0"),
        (("rows", 3, "pruner", "code"), "0"),
        (("rows", 3, "pruner", "name"), "other"),
        (("rows", 3, "budget", "tokens"), 11),
    ],
)
def test_nothing_that_changes_a_number_replaces_a_record(record: EfficiencyRecord, place: tuple[Any, ...], value: object) -> None:
    changed = record.model_dump(mode="json")
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    assert EfficiencyRecord.model_validate(changed).id != record.id


def test_the_store_of_answers_does_not_see_it(record: EfficiencyRecord, tmp_path: Path) -> None:
    (tmp_path / f"tiny{SUFFIX}").write_text(record.dump())
    assert Store(tmp_path, pytest.fail).records() == []


def test_a_dummy_is_described_by_its_prefix_and_no_checkpoint() -> None:
    described = describe(ModelSpec(path="dummy:llava-next-7b", label="NeXT"), "bfloat16", "sdpa")
    assert (described.info.label, described.info.weights, described.info.vision_tokens) == ("NeXT", "dummy", 2880)
    with pytest.raises(UserError, match=r"dummy:llava-1\.5-7b"):
        find_checkpoint("dummy:llava-1.5-7b", None, "x")


@pytest.mark.parametrize("fitting", [0, 1, 2, 3, 7, 8, 11, 12, 40])
def test_the_largest_batch_is_found(fitting: int) -> None:
    tried: list[int] = []

    def fits(batch: int) -> bool:
        tried.append(batch)
        return batch <= fitting

    assert largest(fits, 12) == min(fitting, 12)
    assert max(tried) <= 12
    assert len(tried) == len(set(tried))


def test_the_largest_batch_for_all_rows() -> None:
    assert largest_for_all([lambda n: n <= 9, lambda n: n <= 5, lambda n: n <= 7], 12) == 5
    assert largest_for_all([], 12) == 12
    assert largest_for_all([lambda n: False], 12) == 0


def test_the_largest_batch_needs_a_gpu(families: dict[str, Family]) -> None:
    protocol = ProfileProtocol("Why?", (), True, (20, 20), 1, 0, 1)
    with pytest.raises(UserError, match="--batch max searches the memory of a GPU"):
        measured(families["llava"], pruner_rows([]), protocol)


def test_laps_lie_end_to_end() -> None:
    timer = start_timer(torch.device("cpu"))
    for stage in ("vision", "pruner", "vision"):
        timer.mark(stage)
    assert isinstance(timer, HostTimer)
    laps = timer.laps()
    assert [lap.stage for lap in laps] == ["vision", "pruner", "vision"]
    assert sum(lap.ms for lap in laps) == pytest.approx(1000 * (timer._marks[-1][1] - timer._marks[0][1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((["many"], "640x480"), "--batch many: give a number from 1, or max"),
        ((["0"], "640x480"), "--batch 0"),
        ((["1"], "640"), "--picture 640: write WIDTHxHEIGHT"),
    ],
)
def test_mistakes_name_the_option(options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_protocol(*options, 1, 1, 1)


def test_a_device_that_cannot_be_timed() -> None:
    with pytest.raises(UserError, match="device meta cannot be timed"):
        start_timer(torch.device("meta"))


def test_budgets_of_the_command_line_stand_in_for_those_of_a_suite(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "models: [{label: m, path: dummy:llava-1.5-7b}]\n"
        "matrix: {pruners: [{label: Fast, name: fastv}], budgets: [192, 128], benchmarks: [pope]}\n"
    )
    order = ProfileOptions(suite=str(tmp_path / "s.yaml"), budgets=["64", "11.1%"])
    (task,) = _of_suite(order)
    assert [(row.info.label, row.budget.label) for row in task.pruner_rows] == [
        ("vanilla", "all"), ("random", "64"), ("random", "11.1%"), ("Fast", "64"), ("Fast", "11.1%"),
    ]  # fmt: skip
    (own,) = _of_suite(replace(order, budgets=()))
    assert {row.budget.label for row in own.pruner_rows} == {"all", "192", "128"}


def test_a_device_that_failed_ends_the_profile_and_names_the_row(families: dict[str, Family]) -> None:
    lost = torch.AcceleratorError("CUDA error: device-side assert triggered")
    with pytest.raises(DeviceLost, match=r"triggered\) at pruner 'theirs'; .* leave out that pruner or the model"):
        measured(families["llava"], [*pruner_rows([]), stranger(Breaking(1, lost))])


def test_several_batches_are_counted_once_and_have_a_record_each(families: dict[str, Family]) -> None:
    phases: list[str] = []
    protocol = replace(PROTOCOL, batches=(1, 3), repeats=1)
    first, second = profile(
        families["llava"], INFO, pruner_rows(ASKED), protocol, "tiny", lambda phase, done, total: phases.append(phase)
    )
    assert (first.load.batch, second.load.batch, first.ceilings) == (1, 3, second.ceilings)
    assert phases.count("count") == len(first.rows)
    assert all(len(row.times_ms["prefill"]) == 1 for row in (*first.rows[:-1], *second.rows[:-1]))
    assert second.rows[1].kv_bytes == 3 * first.rows[1].kv_bytes
    assert second.rows[-1].status == "infeasible"


def test_every_stage_is_watched(record: EfficiencyRecord) -> None:
    for row in record.rows[:-1]:
        assert tuple(row.work) == STAGES
        assert row.joules is None
        for stage in ("vision", "prefill", "decode"):
            work = row.work[stage]
            assert work.launches > 0
            assert work.moved_bytes > 0
            assert work.device_ms > 0
    prefill = [row.work["prefill"].moved_bytes for row in record.rows[:-1]]
    assert prefill[0] > prefill[1] > prefill[2], "fewer tokens move less"
    fastv, random = record.rows[3].work["pruner"].launches, record.rows[1].work["pruner"].launches
    assert fastv > random
