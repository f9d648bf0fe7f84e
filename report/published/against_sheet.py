"""Comparisons with published figures, laid out for reading and as rows for scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vtpbench.report.formats.sheet import Sheet, SheetTable, Value
from vtpbench.report.published.compared import AVG, Compared, ComparedRow, Comparison
from vtpbench.report.published.published import number
from vtpbench.report.tables.layout import NONE, marks
from vtpbench.report.tables.rounding import half_up, paper

FIELDS = (
    "table",
    "model",
    "label",
    "published_label",
    "budget",
    "benchmark",
    "published_benchmark",
    "measured",
    "low",
    "high",
    "published",
    "difference",
    "measured_relative",
    "published_relative",
    "relative_difference",
    "verdict",
    "reasons",
)
LEGEND = (
    "score and, in brackets, relative accuracy in %; measured relative to the measured vanilla, published relative to the "
    "printed one; differences are measured less published, in points"
)
VERDICTS = (
    "inside = the published score, or one that is rounded to it, lies within the 95 % interval of the measured score; "
    "outside = it does not; no interval = too little is known of its error"
)


def against_sheet(comparisons: Sequence[Comparison]) -> Sheet:
    """Lay comparisons out; reasons become footnotes."""
    return Sheet(tuple(map(_grid, comparisons)), FIELDS, tuple(row for comparison in comparisons for row in _values(comparison)))


def _grid(comparison: Comparison) -> SheetTable:
    reasons = list(dict.fromkeys(reason for cell in comparison.cells for reason in cell.reasons))
    lines: list[tuple[str, ...]] = []
    for title, rows in comparison.blocks:
        lines.append((title,))
        for row in rows:
            lines += _lines(row, reasons)
    judged = [cell.verdict for cell in comparison.cells]
    counts = [f"{judged.count('inside')} of {len(judged)} scores inside", f"{judged.count('outside')} outside"]
    unknown = judged.count("unknown")
    facts = [
        ("Parity", ", ".join([*counts, *([f"{unknown} without an interval"] if unknown else [])])),
        ("Cells", LEGEND),
        ("Verdict", VERDICTS),
        (AVG, "relative accuracies averaged over the benchmarks that both have"),
        *((f"Reason {i}", reason) for i, reason in enumerate(reasons, 1)),
        ("Measured, not published", "; ".join(comparison.only_measured) or "nothing"),
        ("Published, not measured", "; ".join(comparison.only_published) or "nothing"),
    ]
    columns = ("Pruner", "", *comparison.columns, AVG)
    return SheetTable(comparison.title, columns, tuple(lines), tuple(facts), text_columns=2)


def _lines(row: ComparedRow, reasons: Sequence[str]) -> Iterator[tuple[str, ...]]:
    cells = row.cells
    beside = "" if row.label.lower() == row.beside.lower() else row.beside
    yield (row.label, "measured", *(_figure(c, c.measured, c.measured_relative) if c else NONE for c in cells), _average(row, 0))
    yield (beside, "published", *(_figure(c, c.published, c.published_relative) if c else NONE for c in cells), _average(row, 1))
    yield ("", "difference", *(_difference(c, reasons) if c else "" for c in cells), _average(row, 2))


def _figure(cell: Compared, value: float, ratio: float | None) -> str:
    return paper(value) if ratio is None else f"{paper(value)} ({paper(ratio)})"


def _difference(cell: Compared, reasons: Sequence[str]) -> str:
    ratio = cell.relative_difference
    words = [_signed(cell.difference), *([] if ratio is None else [f"({_signed(ratio)})"])]
    verdict = "no interval" if cell.verdict == "unknown" else cell.verdict
    return " ".join([*words, verdict]) + marks(sorted(reasons.index(reason) + 1 for reason in cell.reasons))


def _average(row: ComparedRow, line: int) -> str:
    if row.average is None:
        return NONE if line < 2 else ""
    if line == 2:
        return _difference(row.average, ())
    return f"{paper((row.average.measured, row.average.published)[line])} %"


def _signed(value: float) -> str:
    rounded = half_up(abs(value), 1)
    return f"{'-' if value < 0 and rounded else '+'}{rounded}"


def _values(comparison: Comparison) -> Iterator[dict[str, Value]]:
    for _, rows in comparison.blocks:
        for row in rows:
            for cell in [*row.cells, row.average]:
                if cell is not None:
                    yield {
                        "table": number(comparison.name),
                        "model": comparison.model,
                        "label": row.label,
                        "published_label": row.beside,
                        "budget": row.budget.label,
                        "benchmark": cell.benchmark,
                        "published_benchmark": cell.beside,
                        "measured": cell.measured,
                        "low": cell.bounds[0] if cell.bounds else None,
                        "high": cell.bounds[1] if cell.bounds else None,
                        "published": cell.published,
                        "difference": cell.difference,
                        "measured_relative": cell.measured_relative,
                        "published_relative": cell.published_relative,
                        "relative_difference": cell.relative_difference,
                        "verdict": cell.verdict,
                        "reasons": "; ".join(cell.reasons),
                    }
