from __future__ import annotations

import pytest

from vtpbench.harness.records.record import DrawInfo, Record
from vtpbench.pruners.errors import UserError
from vtpbench.report.stats.build import build
from vtpbench.report.tables.settings import require_comparable, split, unique

VERSIONS = {"vtpbench": "0.1.0", "transformers": "5.23.0", "torch": "2.12.0", "python": "3.11.9"}


def pair(record, benchmark: str = "A", **change):
    return [record("vanilla", benchmark, 80.0, **change), record("random", benchmark, 40.0, **change)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"versions": {**VERSIONS, "transformers": "5.24.0"}}, r"transformers 5\.23\.0 \(4 cells\) and 5\.24\.0 \(2 cells\)"),
        ({"model": {"dtype": "bfloat16"}}, r"dtype float32 \(4 cells\) and bfloat16 \(2 cells\)"),
        ({"model": {"preprocessing": "pad"}}, r"preprocessing crop \(4 cells\) and pad \(2 cells\)"),
        ({"model": {"prompt": "0123"}}, r"prompt vicuna_v1 \(4 cells\) and 0123 \(2 cells\)"),
        ({"batch": 1}, r"batch size 16 \(4 cells\) and 1 \(2 cells\)"),
    ],
)
def test_settings_of_one_model_that_do_not_compare_are_refused_by_name(record, change, told: str) -> None:
    records = [*pair(record, "A", versions=VERSIONS), *pair(record, "B", versions=VERSIONS)]
    require_comparable(records)
    with pytest.raises(UserError, match=rf"^model 'tiny-llava' of suite 'demo' .*: {told}\. Remove .* --mix$"):
        require_comparable([*records, *pair(record, "A", **{"versions": VERSIONS, **change})])


CPU, OTHER_CPU = "Some Processor @ 2 GHz (cpu)", "Another Processor (cpu)"
GPU, OTHER_GPU = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"


def on(device: str, records: list[Record]) -> list[Record]:
    """Say that records were measured on a device."""
    return [
        r.model_copy(
            update={"environment": r.environment.model_copy(update={"device": device}), "cell_id": r.cell_id[:12] + device[:4]}
        )
        for r in records
    ]


@pytest.mark.parametrize(("first", "second", "told"), [
    (CPU, GPU, rf"device CPU \(1 cell\) and {GPU} \(1 cell\)"),
    (GPU, OTHER_GPU, rf"device {OTHER_GPU} \(1 cell\) and {GPU} \(1 cell\)"),
])  # fmt: skip
def test_a_pruner_on_one_device_over_vanilla_on_another_is_refused(record, first: str, second: str, told: str) -> None:
    vanilla, random = pair(record)
    mixed = [*on(first, [vanilla]), *on(second, [random])]
    with pytest.raises(UserError, match=rf"{told}\. Remove .* --mix$"):
        require_comparable(mixed)
    tables = build(mixed)
    assert {table.title.split(" · ")[-1] for table in tables} == {f"on {'CPU' if d == CPU else d}" for d in (first, second)}
    rows = [row for table in tables for block in table.blocks for row in block.rows]
    assert {entry.relative for row in rows for entry in row.entries} == {100.0, None}, "no ratio over another device's vanilla"


def test_processors_are_one_kind_of_device_and_what_never_ran_fits_any(record) -> None:
    vanilla, random = pair(record)
    require_comparable([*on(CPU, [vanilla]), *on(OTHER_CPU, [random])])
    impossible = record("fastv", status="infeasible", batch=None)
    require_comparable([*on(GPU, [vanilla, random]), *on(CPU, [impossible])])
    (table,) = build([*on(GPU, [vanilla, random]), *on(CPU, [impossible])])
    assert len(table.blocks[1].rows) == 2


def test_another_vanilla_is_refused_by_what_makes_it_another(record) -> None:
    records = pair(record)
    other = [r.model_copy(update={"benchmark": r.benchmark.model_copy(update={"dataset": "older"}), "cell_id": f"{i}"})
             for i, r in enumerate(records)]  # fmt: skip
    with pytest.raises(UserError, match=r"dataset of A data-of-A \(2 cells\) and older \(2 cells\)"):
        require_comparable([*records, *other])


@pytest.mark.parametrize(
    "change",
    [
        {"limit": 20},
        {"model": {"weights": "fedcba9876543210"}},
        {"model": {"tower": "fedcba9876543210"}},
        {"model": {"label": "in half precision", "dtype": "float16"}},
        {"model": {"id": "elsewhere/model"}},
        {"versions": {**VERSIONS, "python": "3.12.1"}},
        {"versions": {**VERSIONS, "vtpbench": "0.1.1"}},
    ],
)
def test_what_is_another_table_by_design_or_changes_no_number_is_not_refused(record, change) -> None:
    require_comparable([*pair(record, versions=VERSIONS), *pair(record, **{"versions": VERSIONS, **change})])


def test_cells_that_never_reached_a_batch_fit_any_batch_size(record) -> None:
    require_comparable([*pair(record), record("fastv", status="infeasible", batch=None)])


def test_one_model_from_two_places_is_one_table(record) -> None:
    settings = split([record("vanilla", score=80.0), record(score=40.0, model={"id": "/mnt/models/tiny"})])
    assert [(setting.title, len(setting.records)) for setting in settings] == [("tiny-llava · suite demo", 2)]


def test_the_place_of_a_model_is_named_only_where_it_is_another_model(record) -> None:
    here, there = record("vanilla"), record("vanilla", model={"id": "/mnt/tiny", "dtype": "bfloat16"})
    titles = {setting.title.removeprefix("tiny-llava · suite demo · ") for setting in split([here, there])}
    assert titles == {"dtype float32", "dtype bfloat16"}
    other = record("vanilla", model={"id": "/mnt/other", "weights": "ffff"})
    assert any("id /mnt/other · weights ffff" in s.title for s in split([here, other]))
    towers = [record("vanilla", model={"id": f"/mnt/{tower}", "tower": tower}) for tower in ("aaaa", "bbbb")]
    named = {s.title.removeprefix("tiny-llava · suite demo · ") for s in split(towers)}
    assert named == {"id /mnt/aaaa · tower aaaa", "id /mnt/bbbb · tower bbbb"}


def test_last_bits_of_a_score_are_no_other_result(record) -> None:
    one = record(score=40.0)
    assert len(unique([one, one.model_copy(update={"score": 40.000000000000007})])) == 1
    with pytest.raises(UserError, match=r"has two results, 40 and 40\.000001; report on"):
        unique([one, one.model_copy(update={"score": 40.000001})])


def test_a_drawn_slice_and_the_first_questions_are_two_tables(record) -> None:
    def limited(draw: DrawInfo | None) -> list[Record]:
        infos = [(r, r.benchmark.model_copy(update={"limit": 8, "draw": draw})) for r in pair(record)]
        return [r.model_copy(update={"benchmark": info, "cell_id": f"{r.cell_id} {draw}"}) for r, info in infos]

    records = [*limited(None), *limited(DrawInfo(seed=3, together=""))]
    require_comparable(records)
    tables = build(records)
    assert len({table.title for table in tables}) == 2
    assert [row.average for table in tables for block in table.blocks[1:] for row in block.rows] == [50, 50]
