import csv
import io
import json
import re
from importlib.resources import files

import pytest
from rich.cells import cell_len
from rich.console import Console

from vtpbench.harness.records.efficiency import (
    NOTHING,
    STAGES,
    Ceilings,
    EfficiencyRecord,
    FlopsInfo,
    Load,
    Machine,
    Measured,
    StageWork,
)
from vtpbench.harness.records.record import BudgetInfo, Environment, ModelInfo, Observed, PrunerInfo
from vtpbench.pruners.errors import UserError
from vtpbench.report.efficiency.break_even import BreakEven
from vtpbench.report.efficiency.plot import plot
from vtpbench.report.efficiency.row import spread
from vtpbench.report.efficiency.table import build
from vtpbench.report.efficiency.text import EfficiencyTerminal, grid, render
from vtpbench.report.tables.amounts import significant
from vtpbench.report.tables.names import styles
from vtpbench.report.tables.palette import COLOURS, MARKERS

MODEL = ModelInfo(
    label="tiny-llava", id="dummy:x", family="llava", weights="dummy", dtype="float32", attention="sdpa", preprocessing="pad",
    prompt="dummy", vision_tokens=144,
)  # fmt: skip


def watched(row: Measured, device_ms: float, moved_bytes: float = 0.0) -> Measured:
    """Let the prefill be all that the device did before the first token, and a tenth of it what it did afterwards."""
    own = {"prefill": StageWork(device_ms=device_ms, launches=300, moved_bytes=moved_bytes)}
    own["decode"] = StageWork(device_ms=device_ms / 10, launches=40, moved_bytes=moved_bytes)
    return row.model_copy(update={"work": dict.fromkeys(STAGES, NOTHING) | own})


def measured(pruner: str, tokens: int | None, prefill: list[float], pruner_ms: float = 1.0, status: str = "ok") -> Measured:
    info = PrunerInfo(name=pruner, label=pruner, options={}, code="", distribution="vtpbench")
    budget = BudgetInfo(tokens=tokens)
    if status != "ok":
        return Measured(pruner=info, budget=budget, status=status, reason="too small a budget")  # type: ignore[arg-type]
    times = {stage: [2.0] * len(prefill) for stage in STAGES} | {"prefill": prefill, "pruner": [pruner_ms] * len(prefill)}
    seen = float(tokens or 144)
    flops = FlopsInfo(vision=1e9, pruner=2e9, projector=0, prefill=[1e12, 1e12], head=0, decode=1e9)
    return Measured(
        pruner=info,
        budget=budget,
        observed=Observed(tokens=seen, original=144, per_layer=[seen, seen], images=1),
        text_tokens=32,
        times_ms=times,
        kv_bytes=3 << 20,
        flops={"exact": flops, "table4": flops},
    )


@pytest.fixture
def record() -> EfficiencyRecord:
    environment = Environment(versions={"torch": "2.12.0"}, device="a|b", platform="linux", git_commit=None)
    return EfficiencyRecord(
        suite="tiny",
        model=MODEL,
        load=Load(batch=1, picture=(64, 48), new_tokens=5, warmup=1, repeats=3),
        machine=Machine(environment=environment, driver=None, threads=1),
        rows=[
            measured("vanilla", None, [93.0, 193.0, 93.0]),
            measured("random", 48, [43.0, 93.0, 43.0]),
            measured("random", 16, [20.0, 40.0, 20.0]),
            measured("slow", 48, [93.0, 193.0, 93.0], pruner_ms=9.0),
            measured("slow", 16, [60.0, 120.0, 60.0], pruner_ms=9.0),
            measured("fastv", 16, [], status="infeasible"),
        ],
        created="2026-01-01T00:00:00+00:00",
    )


def test_ratios_are_taken_turn_by_turn(record) -> None:
    (table,) = build([record])
    assert [row.ttft_speedup for row in table.rows[:3]] == [1.0, pytest.approx(2.0), pytest.approx(100 / 27)]
    assert table.rows[1].ttft_ms is not None
    assert table.rows[1].ttft_ms.median == 50
    assert table.rows[0].tpot_ms is not None
    assert table.rows[0].tpot_ms.median == 0.5


def test_break_even_is_the_largest_budget_that_pays(record) -> None:
    (table,) = build([record])
    assert table.break_even == {"random": BreakEven("48"), "slow": BreakEven("16")}
    hopeless = record.model_copy(update={"rows": [*record.rows[:1], record.rows[3]]})
    assert build([hopeless])[0].break_even == {"slow": BreakEven(None)}


def test_break_even_goes_by_the_speed_up_that_the_table_shows(record) -> None:
    """The median time may be below vanilla's where most turns were slower, and the other way round."""
    rows = [
        measured("vanilla", None, [100.0, 200.0, 300.0]),
        measured("drops", 48, [110.0, 190.0, 310.0]),  # ratios 0.91, 1.05, 0.97
        measured("gains", 48, [90.0, 210.0, 290.0]),  # ratios 1.11, 0.95, 1.03
    ]
    (table,) = build([record.model_copy(update={"rows": rows})])
    assert table.break_even == {"drops": BreakEven(None), "gains": BreakEven("48", within_spread=True)}
    assert "gains 48 (within the spread); within the spread: the quartiles of its ratios to vanilla include 1" in render(
        [table], "markdown"
    )


@pytest.fixture
def on_device(record) -> EfficiencyRecord:
    """Of rows that wait for the host, calculate, and read: 2 TFLOPs at 40 TFLOP/s are 50 ms, 100 GB at 1 TB/s 100 ms."""
    rows = [
        watched(measured("vanilla", None, [93.0, 93.0, 93.0]), 92.0),
        watched(measured("waits", 48, [93.0, 93.0, 93.0]), 30.0),
        watched(measured("calculates", 48, [93.0, 93.0, 93.0]), 90.0, 1e9),
        watched(measured("reads", 48, [193.0, 193.0, 193.0]), 190.0, 1e11),
    ]
    return record.model_copy(update={"rows": rows, "ceilings": Ceilings(tflops_per_s=40, gb_per_s=1000)})


def test_a_row_says_what_it_is_bound_by(on_device) -> None:
    (table,) = build([on_device])
    bounds = [row.bound for row in table.rows]
    assert [bound.by for bound in bounds] == ["compute", "launch", "compute", "memory"]
    elapsed = 2 + 1 + 2 + 93  # preprocessing is the host's, and does not count
    assert bounds[1].busy == pytest.approx(30 / elapsed)
    assert bounds[2].compute == pytest.approx(2.003 / 0.09 / 40)
    assert bounds[3].memory == pytest.approx(100 / 0.19 / 1000)


def test_the_sentence_below_says_what_to_do(on_device) -> None:
    text = dict(build([on_device])[0].footer)
    assert text["what holds rows back"].startswith("up to the first token 1 of 4 rows are launch-bound (device busy 31 %): ")
    assert "2 of 4 rows are compute-bound" in text["what holds rows back"]
    assert text["ceilings"].startswith("40 TFLOP/s in a matrix product, 1000 GB/s in a copy")


def test_break_even_is_told_apart_by_clock_and_device(on_device) -> None:
    (table,) = build([on_device])
    assert str(table.break_even["waits"]) == "none of those measured"
    assert str(table.device_break_even["waits"]) == "48"
    line = "largest with a TTFT speed-up above 1: waits none of those measured, "
    assert line in render([table], "markdown")
    assert "; in the device's time: waits 48, calculates 48, reads none of those measured" in render([table], "markdown")


def test_what_the_device_did_stands_beside_the_time_that_passed(on_device) -> None:
    names, _, waits, *_ = grid(build([on_device])[0])
    shown = dict(zip(names, waits, strict=True))
    assert shown["prefill ms"] == "93 (0)"
    assert shown["prefill device ms (launches)"] == "30 (300)"
    assert shown["TTFT on device x"] == "3.07"
    assert shown["bound by"] == "launch (device busy 31 %)"
    assert shown["questions /s"] == "9.8"  # 102 ms end to end
    (found,) = json.loads(render(build([on_device]), "json"))
    assert (found["rows"][1]["prefill_device_ms"], found["rows"][1]["prefill_launches"]) == (30, 300)
    assert found["rows"][1]["bound"] == "launch"
    assert found["device_break_even"]["waits"] == {"budget": "48", "within_spread": False}


def test_energy_has_a_column_where_the_driver_counts_it(record) -> None:
    assert "energy J a question" not in grid(build([record])[0])[0]
    rows = [row.model_copy(update={"joules": 12.5}) for row in record.rows]
    names, vanilla, *_ = grid(build([record.model_copy(update={"rows": rows})])[0])
    assert vanilla[names.index("energy J a question")] == "12.5"


def test_a_count_has_operations_and_no_times(record) -> None:
    rows = [row.model_copy(update={"times_ms": {}}) for row in record.rows]
    counted = record.model_copy(update={"rows": rows, "load": record.load.model_copy(update={"repeats": 0})})
    (table,) = build([counted])
    assert [name for name in grid(table)[0] if "ms" in name.split() or " x" in name] == []
    assert table.title == "tiny-llava, operations of one prompt"
    assert dict(table.footer)["counted"] == "nothing was run; the cache is of float32"
    assert table.break_even == {}


def test_what_leaves_no_token_out_cannot_break_even(record) -> None:
    rows = [record.rows[0], measured("random", 144, [10.0, 10.0, 10.0]), measured("random", 200, [10.0, 10.0, 10.0])]
    assert build([record.model_copy(update={"rows": rows})])[0].break_even == {}


def test_a_row_that_cannot_be_measured_says_why(record) -> None:
    (table,) = build([record])
    assert table.notes == ("fastv @ 16: infeasible: too small a budget",)
    assert grid(table)[-1][:4] == ["fastv", "16", "infeasible", "-"]


def test_outliers_are_counted_and_stay() -> None:
    assert spread([1.0, 1.0, 1.0, 1.0, 9.0]).outliers == 1
    assert spread([4.0]).median == 4
    values = spread([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (values.median, values.iqr, values.outliers) == (3, 2, 0)


def test_markdown_is_a_table(record) -> None:
    text = render(build([record]), "markdown")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert "peak" not in lines[0], "nobody measured it"
    assert "random weights" in text
    assert "a&#124;b" in text
    assert "- **break-even budget:** largest with a TTFT speed-up above 1: random 48, slow 16\n" in text
    assert "operations: one prompt" not in text


def test_columns_of_markdown_are_even_whatever_is_in_them(record) -> None:
    rows = [*record.rows[:2], measured("a|b 漢字", 16, [20.0, 40.0, 20.0])]
    text = render(build([record.model_copy(update={"rows": rows})]), "markdown")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({cell_len(line) for line in lines}) == 1
    assert [line.split("|")[1] for line in lines[-3:]] == [" vanilla       ", " random        ", " a&#124;b 漢字 "]


def test_csv_and_json_hold_the_same_rows(record) -> None:
    tables = build([record])
    lines = list(csv.DictReader(io.StringIO(render(tables, "csv"))))
    (found,) = json.loads(render(tables, "json"))
    assert [line["ttft_ms_median"] for line in lines] == ["100.0", "50.0", "27.0", "108.0", "75.0", ""]
    assert [row.get("prefill_ms_median") for row in found["rows"]] == [93.0, 43.0, 20.0, 93.0, 60.0, None]
    assert {name: lines[0][name] for name in ("model", "batch", "device", "dtype", "attention", "weights")} == {
        "model": "tiny-llava", "batch": "1", "device": "a|b", "dtype": "float32", "attention": "sdpa", "weights": "dummy",
    }  # fmt: skip
    assert found["break_even"]["random"] == {"budget": "48", "within_spread": False}
    with pytest.raises(UserError, match="unknown format 'cvs'; did you mean 'csv'"):
        render(tables, "cvs")


def test_what_could_not_be_measured_adds_no_fields(record) -> None:
    one_token = record.model_copy(update={"load": record.load.model_copy(update={"new_tokens": 1})})
    (found,) = json.loads(render(build([record]), "json"))
    assert len({tuple(row) for row in found["rows"]}) == 1
    assert not {"ttft_ms", "tpot_ms", "total_ms", "stages_ms"} & set(found["rows"][-1])
    header = render(build([record]), "csv").splitlines()[0]
    assert render(build([one_token]), "csv").splitlines()[0] == header


def test_one_repeat_has_no_spread(record) -> None:
    rows = [measured("vanilla", None, [93.0]), measured("random", 48, [43.0])]
    load = record.load.model_copy(update={"repeats": 1})
    (table,) = build([record.model_copy(update={"rows": rows, "load": load})])
    text = render([table], "markdown")
    assert "| 100 (-) |" in text
    assert "(0)" not in text
    assert "**times:** 1 repeat, all rows in turn, after 1 for warming up; no spread is known" in text
    assert json.loads(render([table], "json"))[0]["rows"][0]["ttft_ms_iqr"] is None


def test_below_a_batch_it_says_what_belongs_to_all_prompts(record) -> None:
    load = record.load.model_copy(update={"batch": 3})
    text = render(build([record.model_copy(update={"load": load})]), "markdown")
    assert "- **times and memory:** batch of 3; operations: one prompt\n" in text


def test_a_row_with_another_number_of_text_tokens_is_named(record) -> None:
    rows = [*record.rows[:2], record.rows[2].model_copy(update={"text_tokens": 30})]
    (table,) = build([record.model_copy(update={"rows": rows})])
    assert dict(table.footer)["prompt"] == "64 x 48 pixels, 32 (random: 30) text tokens, 5 new"


@pytest.mark.parametrize(
    ("scale", "unit", "shown"), [(1.0, "TFLOPs", "2.003"), (1e-3, "GFLOPs", "2.003"), (1e-8, "MFLOPs", "0.02003")]
)
def test_operations_are_counted_in_a_unit_that_suits_them(record, scale: float, unit: str, shown: str) -> None:
    def small(row: Measured) -> Measured:
        flops = FlopsInfo(vision=1e9 * scale, pruner=2e9 * scale, projector=0, prefill=[1e12 * scale] * 2, head=0, decode=1e9)
        return row.model_copy(update={"flops": {"exact": flops, "table4": flops}, "kv_bytes": int(3145728 * scale)})

    rows = [small(row) for row in record.rows[:3]]
    names, vanilla, *_ = grid(build([record.model_copy(update={"rows": rows})])[0])
    assert vanilla[names.index(unit)] == shown
    assert [name.split()[-1] for name in names if name.startswith("pruner") and "FLOPs" in name] == [
        "GFLOPs" if scale == 1 else "MFLOPs"
    ]
    assert not [cell for cell in vanilla if "e-" in cell]


def test_significant_digits_never_take_an_exponent() -> None:
    numbers = (0, 7.969e-05, 0.0547, 8.5, 303.97, 1234.5, 123456.0)
    assert [significant(value, 3) for value in numbers] == ["0", "0.0000797", "0.0547", "8.5", "304", "1234", "123456"]


@pytest.mark.parametrize("width", [60, 250])
def test_a_terminal_gets_every_number(record, width: int) -> None:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(EfficiencyTerminal(build([record])))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for name in grid(build([record])[0])[0]:
        assert name in shown
    assert "…" not in shown


def test_the_plot_is_a_picture(record) -> None:
    tables = build([record])
    assert plot(tables).startswith(b"\x89PNG")
    assert plot(tables * 2, "svg").count(b"<svg") == 1


def test_the_plot_says_on_what_and_in_which_format_it_was_measured(record) -> None:
    words = re.findall("<!-- (.*?) -->", plot(build([record]), "svg").decode())
    assert {"tiny-llava, batch 1, random weights", "a|b, float32"} <= set(words)


def test_fourteen_pruners_have_colours_and_markers_of_their_own_and_random_is_grey(record) -> None:
    labels = [f"p{i}" for i in range(14)]
    numbers = styles([("p0", "fastv"), ("floor", "random"), *((label, "grid") for label in labels)])
    assert numbers == {"floor": 0} | {label: i for i, label in enumerate(labels, 1)}
    assert len(set(COLOURS)) == len(set(MARKERS)) == len(numbers) == 15
    red, green, blue = (int(COLOURS[0][i : i + 2], 16) for i in (1, 3, 5))
    assert max(red, green, blue) - min(red, green, blue) < 32
    rows = [measured(name, 16, [10.0, 10.0, 10.0]) for name in ("random", *labels)]
    drawn = plot(build([record.model_copy(update={"rows": [record.rows[0], *rows]})]), "svg").decode()
    assert {colour for colour in COLOURS if f"stroke: {colour}" in drawn} == set(COLOURS)


def test_the_page_has_the_colours_of_the_plot() -> None:
    style = files("vtpbench.report.html").joinpath("page.css").read_text()
    script = files("vtpbench.report.html").joinpath("core.js").read_text()
    assert tuple(re.findall(r"--c\d+: light-dark\((#\w+),", style)) == COLOURS
    assert script.count("Z', // ") == len(MARKERS)
    assert f"const COLOURS = {len(COLOURS) - 1}\n" in script
