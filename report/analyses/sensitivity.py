"""Sensitivity: what the averages, and the order of the rows, are without benchmarks whose protocols differ between papers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vtpbench.report.formats.sheet import Sheet, SheetTable, Value
from vtpbench.report.tables.layout import NONE
from vtpbench.report.tables.rounding import average, paper
from vtpbench.report.tables.table import Block, Table

WITHOUT = ("seed", "vizwiz")
"""Benchmarks whose published scores reach 109 % of vanilla; see results/published."""
FIELDS = ("table", "block", "label", "average", "n", "average_without", "n_without", "rank", "rank_without", "without")


def sensitivity(tables: Sequence[Table], without: Sequence[str] = WITHOUT) -> Sheet:
    """Average again without the columns whose labels begin with one of `without`; tables that have none are left out."""
    grids: list[SheetTable] = []
    values: list[dict[str, Value]] = []
    for table in tables:
        left = [label for label in table.columns if label.lower().startswith(tuple(without))]
        if left and len(left) < len(table.columns):
            rows = [row for block in table.blocks[1:] for row in _rows(table, block, left)]
            grids.append(_grid(table, left, rows))
            values += rows
    return Sheet(tuple(grids), FIELDS, tuple(values))


def _rows(table: Table, block: Block, left: Sequence[str]) -> Iterator[dict[str, Value]]:
    whole = [row.average for row in block.rows]
    kept = [i for i, label in enumerate(table.columns) if label not in left]
    fewer = [average([row.entries[i].relative for i in kept]) for row in block.rows]
    means = [None if row.average is None else mean for row, (mean, _) in zip(block.rows, fewer, strict=True)]
    for row, mean, (_, n) in zip(block.rows, means, fewer, strict=True):
        yield {
            "table": table.title,
            "block": block.title,
            "label": row.label,
            "average": row.average,
            "n": row.n,
            "average_without": mean,
            "n_without": n,
            "rank": _rank(row.average, whole),
            "rank_without": _rank(mean, means),
            "without": ", ".join(left),
        }


def _rank(value: float | None, among: Sequence[float | None]) -> int | None:
    return None if value is None else 1 + sum(other > value for other in among if other is not None)


def _grid(table: Table, left: Sequence[str], rows: Sequence[dict[str, Value]]) -> SheetTable:
    lines: list[tuple[str, ...]] = []
    for row in rows:
        if (str(row["block"]),) not in lines:
            lines.append((str(row["block"]),))
        numbers = (_text(row, name, suffix) for suffix in ("", "_without") for name in ("average", "n", "rank"))
        lines.append((str(row["label"]), *numbers))
    names = " and ".join(left)
    columns = ("Pruner", "Avg", "n", "rank", f"Avg without {names}", "n", "rank")
    facts = (("Why", f"in papers, vanilla and pruned rows of {names} may follow different protocols, which moves averages"),)
    return SheetTable(f"{table.title} · without {names}", columns, tuple(lines), facts)


def _text(row: dict[str, Value], name: str, suffix: str) -> str:
    value = row[name + suffix]
    if value is None:
        return NONE
    return f"{paper(float(value))} %" if name == "average" else str(value)
