"""Flips: questions that a pruner breaks (vanilla is right, the pruner wrong) or mends (the other way round)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vtpbench.harness.records.record import Record
from vtpbench.report.analyses.columns import RIGHT, is_right
from vtpbench.report.formats.sheet import Sheet, SheetTable, Value
from vtpbench.report.tables.layout import NONE
from vtpbench.report.tables.names import row_labels
from vtpbench.report.tables.settings import groups, identity, is_vanilla, split

if TYPE_CHECKING:
    from vtpbench.report.stats.resampled import Samples

FIELDS = (
    "model",
    "pruner",
    "label",
    "budget",
    "benchmark",
    "seed",
    "kind",
    "sample",
    "image",
    "category",
    "prompt",
    "target",
    "vanilla_answer",
    "answer",
    "vanilla_score",
    "score",
    "vanilla_cell_id",
    "cell_id",
)


@dataclass(frozen=True)
class Flip:
    """One question that changed sides."""

    kind: Literal["broken", "mended"]
    vanilla: dict[str, Any]
    """Row of vanilla's per-sample table."""
    pruned: dict[str, Any]


@dataclass(frozen=True)
class CellFlips:
    """What became of vanilla's answers in one pruned cell."""

    record: Record
    vanilla: Record
    label: str
    """Row in tables."""
    n: int
    """Questions that both answered."""
    flips: tuple[Flip, ...]

    def count(self, kind: str) -> int:
        """Count the flips of a kind."""
        return sum(flip.kind == kind for flip in self.flips)


@dataclass(frozen=True)
class SettingFlips:
    """What pruning broke and mended, cell by cell, in one table."""

    title: str
    cells: tuple[CellFlips, ...]
    left_out: tuple[str, ...]
    """Benchmarks without scores per question."""


def flips(records: Iterable[Record], samples: Samples) -> tuple[SettingFlips, ...]:
    """Compare every pruned cell with vanilla of the same setting, question by question; see `is_right` for which is right."""
    found = []
    for setting in split(records):
        labels = row_labels(setting.records)
        cells: list[CellFlips] = []
        left_out: list[str] = []
        for name, column in sorted(groups(setting.records, lambda r: r.benchmark.label).items()):
            vanilla = next((r for r in column if is_vanilla(r) and r.score is not None), None)
            table = None if vanilla is None else samples(vanilla)
            before = {} if table is None else _rows(table)
            if vanilla is None or not before:
                why = "no vanilla cell with samples" if table is None else "its task scores no single question"
                left_out.append(f"{name} ({why})")
                continue
            for record in column:
                if not is_vanilla(record) and record.score is not None and (own := samples(record)) is not None:
                    cells.append(_compare(record, vanilla, labels[identity(record.pruner)], before, _rows(own)))
        found.append(SettingFlips(setting.title, tuple(cells), tuple(left_out)))
    return tuple(found)


def _rows(table: Any) -> dict[str, dict[str, Any]]:
    scored = table[table["score"].notna()]
    return {row["sample"]: row for row in scored.to_dict("records")}


def _compare(record: Record, vanilla: Record, label: str, before: dict[str, Any], after: dict[str, Any]) -> CellFlips:
    shared = [sample for sample in before if sample in after]
    found = []
    for sample in shared:
        was, now = (is_right(rows[sample]["score"], record.benchmark) for rows in (before, after))
        if was != now:
            found.append(Flip("broken" if was else "mended", before[sample], after[sample]))
    return CellFlips(record, vanilla, label, len(shared), tuple(found))


def flips_sheet(found: Sequence[SettingFlips]) -> Sheet:
    """Count flips per cell, for reading; list them one by one, for scripts."""
    rows = tuple(row for setting in found for cell in setting.cells for row in _values(cell))
    return Sheet(tuple(_grid(setting) for setting in found), FIELDS, rows)


def _grid(setting: SettingFlips) -> SheetTable:
    columns = sorted({cell.record.benchmark.label for cell in setting.cells})
    rows: dict[tuple[str, str, int], dict[str, CellFlips]] = {}
    for cell in setting.cells:
        place = cell.record.budget.label, cell.label, cell.record.seed
        rows.setdefault(place, {})[cell.record.benchmark.label] = cell
    seeds = len({seed for _, _, seed in rows}) > 1
    lines: list[tuple[str, ...]] = []
    for budget in sorted({place[0] for place in rows}, key=_size, reverse=True):
        lines.append((f"Retain {budget}" if budget.endswith("%") else f"Retain {budget} tokens",))
        for own, label, seed in sorted(place for place in rows if place[0] == budget):
            name = f"{label}, seed {seed}" if seeds else label
            lines.append((name, *(_text(rows[own, label, seed].get(column)) for column in columns)))
    facts = [
        ("Cells", "questions that vanilla has right and the pruner wrong (-), the other way round (+), of those both answered"),
        ("Right", f"a score of at least {RIGHT:g}; of what is better the less it is, of at most {RIGHT:g}"),
        *([("Left out", "; ".join(setting.left_out))] if setting.left_out else []),
    ]
    return SheetTable(f"{setting.title} · flips", ("Pruner", *columns), tuple(lines), tuple(facts))


def _text(cell: CellFlips | None) -> str:
    return NONE if cell is None else f"-{cell.count('broken')} +{cell.count('mended')} of {cell.n}"


def _size(budget: str) -> float:
    return float(budget.removesuffix("%"))


def _values(cell: CellFlips) -> Iterator[dict[str, Value]]:
    for flip in cell.flips:
        yield {
            "model": cell.record.model.label,
            "pruner": cell.record.pruner.name,
            "label": cell.label,
            "budget": cell.record.budget.label,
            "benchmark": cell.record.benchmark.label,
            "seed": cell.record.seed,
            "kind": flip.kind,
            **{name: flip.pruned[name] for name in ("sample", "image", "category", "prompt", "target")},
            "vanilla_answer": flip.vanilla["answer"],
            "answer": flip.pruned["answer"],
            "vanilla_score": flip.vanilla["score"],
            "score": flip.pruned["score"],
            "vanilla_cell_id": cell.vanilla.cell_id,
            "cell_id": cell.record.cell_id,
        }
