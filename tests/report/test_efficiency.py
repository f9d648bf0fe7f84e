import csv
import io
import json

import pytest
from rich.console import Console

from vtpbench.harness.efficiency.record import STAGES, EfficiencyRecord, FlopsInfo, Load, Machine, Measured
from vtpbench.harness.record import BudgetInfo, Environment, ModelInfo, Observed, PrunerInfo
from vtpbench.pruners.errors import UserError
from vtpbench.report.efficiency import build, spread
from vtpbench.report.efficiency_plot import plot
from vtpbench.report.efficiency_text import EfficiencyTerminal, grid, render

MODEL = ModelInfo(
    label="tiny-llava", id="dummy:x", family="llava", weights="dummy", dtype="float32", attention="sdpa", preprocessing="pad",
    prompt="dummy", vision_tokens=144,
)  # fmt: skip


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
    assert table.break_even == {"random": "48", "slow": "16"}
    hopeless = record.model_copy(update={"rows": [*record.rows[:1], record.rows[3]]})
    assert build([hopeless])[0].break_even == {"slow": "none of those measured"}


def test_a_row_that_cannot_be_measured_says_why(record) -> None:
    (table,) = build([record])
    assert table.notes == ("fastv @ 16: infeasible: too small a budget",)
    assert grid(table)[-1][:4] == ["fastv", "16", "infeasible", "-"]


def test_accuracy_of_the_same_model_stands_beside(record, matrix) -> None:
    tokens = record.model_copy(update={"rows": [*record.rows[:1], measured("random", 16, [1.0, 1.0, 1.0])]})
    (table,) = build([tokens], matrix)
    assert table.rows[0].accuracy == pytest.approx(100)
    assert table.rows[1].accuracy is not None
    assert 60 < table.rows[1].accuracy < 100
    assert grid(table)[0][-1] == "accuracy %"
    assert grid(build([record])[0])[0][-1] == "peak MiB"


def test_accuracy_is_that_of_the_full_run_and_vanilla_is_known_by_any_label(record, matrix) -> None:
    measured_rows = record.model_copy(update={"rows": [record.rows[0], record.rows[2]]})
    full = [r for r in matrix if r.benchmark.label == "GQA" and (r.pruner.name == "vanilla" or r.budget.tokens == 16)]
    called = {"pruner": full[0].pruner.model_copy(update={"label": "unpruned"})}
    full = [full[0].model_copy(update=called), *full[1:]]
    (alone,) = build([measured_rows], full)
    assert [row.accuracy for row in alone.rows] == [100, pytest.approx(100 * 62 / 86.25)]
    trial = [
        r.model_copy(
            update={"cell_id": f"{r.cell_id}-trial", "score": r.score and r.score / (1 + (r.pruner.name != "vanilla")),
                    "benchmark": r.benchmark.model_copy(update={"limit": 10})}
        )
        for r in full
    ]  # fmt: skip
    assert build([measured_rows], [*full, *trial]) == [alone]


def test_outliers_are_counted_and_stay() -> None:
    assert spread([1.0, 1.0, 1.0, 1.0, 9.0]).outliers == 1
    assert spread([4.0]).median == 4
    values = spread([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (values.median, values.iqr, values.outliers) == (3, 2, 0)


def test_markdown_is_a_table(record) -> None:
    text = render(build([record]), "markdown")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert "| not measured |" in lines[2]
    assert "random weights" in text
    assert "a&#124;b" in text
    assert "- **break-even budget:** largest with a TTFT below vanilla's: random 48, slow 16" in text


def test_csv_and_json_hold_the_same_rows(record) -> None:
    tables = build([record])
    lines = list(csv.DictReader(io.StringIO(render(tables, "csv"))))
    (found,) = json.loads(render(tables, "json"))
    assert [line["ttft_ms_median"] for line in lines] == ["100.0", "50.0", "27.0", "108.0", "75.0", ""]
    assert [row.get("prefill_ms_median") for row in found["rows"]] == [93.0, 43.0, 20.0, 93.0, 60.0, None]
    with pytest.raises(UserError, match="unknown format 'cvs'; did you mean 'csv'"):
        render(tables, "cvs")


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
