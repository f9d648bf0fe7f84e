"""The table: records in, an immutable model of the paper's layout out. What prints it knows this model only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Literal

from vtpbench.harness.records.record import Record, agree
from vtpbench.pruners.errors import UserError
from vtpbench.report.tables.footer import footer
from vtpbench.report.tables.names import block_title, row_labels
from vtpbench.report.tables.rounding import average, relative
from vtpbench.report.tables.settings import Setting, groups, identity, is_vanilla, split

EntryStatus = Literal["ok", "failed", "infeasible", "unsupported", "missing", "unpublished"]
Interval = tuple[float, float]


@dataclass(frozen=True)
class CellIntervals:
    """95 % intervals of one record's numbers, where they are known."""

    score: Interval | None = None
    relative: Interval | None = None


@dataclass(frozen=True)
class TableEntry:
    """One pruner on one benchmark, all seeds together."""

    status: EntryStatus
    score: float | None = None
    """Mean over seeds."""
    spread: float | None = None
    """Standard deviation of the score over seeds, where there are several."""
    vanilla: float | None = None
    relative: float | None = None
    """Per cent of vanilla, not rounded."""
    notes: tuple[int, ...] = ()
    """Numbers of the footnotes, from 1."""
    records: tuple[Record, ...] = ()
    score_interval: Interval | None = None
    """95 % interval of `score`; this and what follows is known only where a table was built with samples."""
    interval: Interval | None = None
    """95 % interval of `relative`, which carries vanilla's error too."""
    cell_intervals: Mapping[str, CellIntervals] = field(default_factory=dict)
    """The same of each record, by cell id; a record without a per-sample table is not there."""
    tied: bool = False
    """Cannot be told apart from the best of its block on this benchmark."""

    @property
    def answer_tokens(self) -> float | None:
        """Tokens generated for an answer, mean over answers, then over the seeds of which it is known."""
        seen = [r.observed.answer_tokens for r in self.records if r.observed and r.score is not None]
        return _mean([tokens for tokens in seen if tokens is not None])


@dataclass(frozen=True)
class TableRow:
    """One pruner at one budget; `entries` lie as the table's columns do."""

    label: str
    observed: float | None
    """Vision tokens that entered a decoder layer, mean over seeds and benchmarks."""
    entries: tuple[TableEntry, ...]
    average: float | None
    """Mean of the unrounded relative accuracies, per cent."""
    average_spread: float | None
    n: int
    """Benchmarks in the average."""
    average_interval: Interval | None = None
    """95 % interval of the average."""
    tied: bool = False
    """Cannot be told apart from the row of its block with the highest average."""
    p_value: float | None = None
    """Of `no difference from the reference row of the block`, corrected for the number of rows."""
    notes: tuple[int, ...] = ()
    """Numbers of the footnotes that say why there is no interval."""


@dataclass(frozen=True)
class Block:
    """All pruners at one budget."""

    title: str
    rows: tuple[TableRow, ...]


@dataclass(frozen=True)
class Table:
    """One model in one setting; the first block is vanilla."""

    title: str
    columns: tuple[str, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...] = ()
    footer: tuple[tuple[str, str], ...] = ()
    """Names and texts of what a reader must know to trust the numbers."""

    @property
    def falling(self) -> frozenset[str]:
        """Columns of which less is better."""
        rows = [row for block in self.blocks for row in block.rows]
        places = [(name, entry) for row in rows for name, entry in zip(self.columns, row.entries, strict=True)]
        return frozenset(name for name, entry in places if any(not r.benchmark.higher_is_better for r in entry.records))


def build_tables(records: Iterable[Record], benchmarks: Sequence[str] = (), pruners: Sequence[str] = ()) -> tuple[Table, ...]:
    """Make the tables, without intervals; the order of the records does not matter.

    Benchmarks and pruners (labels) come in the order given, those not named after them by alphabet.
    """
    return tuple(_table(setting, benchmarks, pruners) for setting in split(records))


@dataclass
class _Notes:
    """Footnotes in the order in which a reader meets them; equal texts share a number."""

    texts: list[str] = field(default_factory=list)

    def number(self, text: str) -> int:
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


@dataclass(frozen=True)
class _TableDraft:
    """What the rows of one table share while it is made."""

    columns: tuple[str, ...]
    vanilla: Mapping[str, float]
    skipped: Mapping[str, frozenset[str]]
    """Questions that vanilla left out, by benchmark."""
    labels: Mapping[str, str]
    order: Callable[[str], tuple[int, str]]
    notes: _Notes


def _table(setting: Setting, benchmarks: Sequence[str], pruners: Sequence[str]) -> Table:
    records = setting.records
    columns = tuple(sorted({r.benchmark.label for r in records}, key=_preferred(benchmarks)))
    vanilla = _vanilla_scores(records), _vanilla_skipped(records)
    draft = _TableDraft(columns, *vanilla, row_labels(records), _preferred(pruners), _Notes())
    original = _original(records)
    blocks = [
        _block(same, original, draft)
        for same in sorted(groups(records, _budget_key).values(), key=lambda same: _size(same, original), reverse=True)
    ]
    return Table(setting.title, columns, tuple(blocks), tuple(draft.notes.texts), footer(records, columns))


def _block(records: Sequence[Record], original: float | None, draft: _TableDraft) -> Block:
    rows = groups(records, lambda r: identity(r.pruner))
    ordered = sorted(rows.values(), key=lambda row: (draft.order(row[0].pruner.label), draft.labels[identity(row[0].pruner)]))
    made = tuple(_row(row, draft) for row in ordered)
    observed = _mean([row.observed for row in made if row.observed is not None])
    return Block(block_title(records[0], observed, original), made)


def _row(records: Sequence[Record], draft: _TableDraft) -> TableRow:
    by_column = groups(records, lambda r: r.benchmark.label)
    seen = {r.seed for r in records}
    entries = tuple(_entry(by_column.get(column, []), column, draft, seen) for column in draft.columns)
    mean, n = average([entry.relative for entry in entries])
    return TableRow(
        label=draft.labels[identity(records[0].pruner)],
        observed=_mean([r.observed.tokens for r in records if r.observed and r.status == "ok"]),
        entries=entries,
        average=mean,
        average_spread=_average_spread(entries),
        n=n,
    )


def seeds_asked(records: Iterable[Record], seen: Iterable[int] = ()) -> set[int]:
    """Seeds that there should be of a row on one benchmark; `seen` are those of the row on any, where records do not say."""
    own = list(records)
    return {r.seed for r in own} | ({seed for r in own for seed in r.seeds} or set(seen))


def _entry(records: Sequence[Record], column: str, draft: _TableDraft, seen: Iterable[int]) -> TableEntry:
    vanilla, notes = draft.vanilla.get(column), draft.notes
    scores = [r.score for r in records if r.score is not None]
    failures = [r for r in records if r.score is None]
    numbers = [notes.number(_reason(r)) for r in failures]
    if not records:
        return TableEntry("missing", notes=(notes.number("missing: no record yet"),))
    asked = seeds_asked(records, seen)
    if absent := asked - {r.seed for r in records}:
        which = f"{'seed' if len(absent) == 1 else 'seeds'} {', '.join(map(str, sorted(absent)))}"
        numbers.append(notes.number(f"{len(asked) - len(absent)} of {len(asked)} seeds: no record of {which}"))
    if not scores:
        worst = next(status for status in ("failed", "infeasible", "unsupported", "ok") if status in {r.status for r in records})
        return TableEntry(worst, vanilla=vanilla, notes=tuple(sorted(set(numbers))), records=tuple(records))
    score = fmean(scores)
    numbers += [notes.number(remark) for r in records for remark in r.remarks]
    why = "vanilla scores 0" if vanilla is not None else "no vanilla score of this benchmark in the same setting"
    if vanilla is not None and any(draft.skipped[column] != r.skipped.keys() for r in records if r.score is not None):
        why, vanilla = "other questions were left out here than of vanilla's", None
    ratio = relative(score, vanilla, records[0].benchmark.higher_is_better)
    if ratio is None:
        numbers.append(notes.number(f"no relative accuracy: {why}"))
    spread = stdev(scores) if len(scores) > 1 else None
    return TableEntry("ok", score, spread, vanilla, ratio, tuple(sorted(set(numbers))), tuple(records))


def _average_spread(entries: Sequence[TableEntry]) -> float | None:
    """Spread of the average over those seeds that all of its benchmarks have."""
    present = [entry for entry in entries if entry.relative is not None]
    ratios = [
        {r.seed: relative(r.score, e.vanilla, r.benchmark.higher_is_better) for r in e.records if r.score is not None}
        for e in present
    ]
    shared = set[int].intersection(*map(set, ratios)) if ratios else set()
    means = [average([by_seed[seed] for by_seed in ratios])[0] for seed in sorted(shared)]
    return stdev([mean for mean in means if mean is not None]) if len(means) > 1 else None


def _reason(record: Record) -> str:
    """Say in one line why a cell has no score; of a traceback, its last line."""
    lines = (record.reason or "no reason given").strip().splitlines()
    return f"{record.status}: {lines[-1].strip() if record.status == 'failed' else ' '.join(lines)}"


def _vanilla_scores(records: Iterable[Record]) -> dict[str, float]:
    """Denominator per benchmark: the vanilla score, mean over seeds.

    Raises
    ------
    UserError
        Two versions of vanilla itself disagree.

    """
    found: dict[str, float] = {}
    measured = [r for r in records if is_vanilla(r) and r.score is not None]
    for column, same in groups(measured, lambda r: r.benchmark.label).items():
        versions = groups(same, lambda r: identity(r.pruner, without="label")).values()
        means = [fmean(r.score for r in version if r.score is not None) for version in versions]
        if not agree(min(means), max(means)):
            cells = ", ".join(f"{version[0].cell_id} ({mean:.10g})" for version, mean in zip(versions, means, strict=True))
            raise UserError(f"vanilla results on '{column}' disagree: cells {cells}; remove the record that is out of date")
        found[column] = means[0]
    return found


def _vanilla_skipped(records: Iterable[Record]) -> dict[str, frozenset[str]]:
    measured = (r for r in records if is_vanilla(r) and r.score is not None)
    return {r.benchmark.label: frozenset(r.skipped) for r in measured}


def _original(records: Iterable[Record]) -> float | None:
    """Vision tokens of an unpruned image: what vanilla showed, else what the others saw before pruning."""
    seen = [r for r in records if r.observed is not None]
    vanilla = [r for r in seen if is_vanilla(r)]
    return _mean([r.observed.original for r in vanilla or seen if r.observed is not None])


def _size(records: Sequence[Record], original: float | None) -> tuple[float, str]:
    """Sort key of a block: its share of the tokens, vanilla first."""
    budget = records[0].budget
    if is_vanilla(records[0]):
        return float("inf"), ""
    share = budget.ratio if budget.ratio is not None else (budget.tokens or 0) / (original or 1)
    return share, budget.label


def _budget_key(record: Record) -> str:
    return "vanilla" if is_vanilla(record) else identity(record.budget)


def _preferred(first: Sequence[str]) -> Callable[[str], tuple[int, str]]:
    return lambda label: (first.index(label) if label in first else len(first), label)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
