"""Tables over a part of the questions: those that plain downsampling gets wrong, or those of one ability.

Both make records of their own from per-sample scores, which the report's one way to make tables then takes: vanilla is scored
on the same questions. Means, F1, MME and circular accuracy are computed anew from the samples of the part, pairs and rotations
staying together; a metric of another kind says that it cannot be.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from vtpbench.harness.records.record import BenchmarkInfo, Record, agree
from vtpbench.pruners.errors import UserError
from vtpbench.report.stats.build import build
from vtpbench.report.tables.conventions import REFERENCE
from vtpbench.report.tables.settings import groups, identity, is_vanilla, split
from vtpbench.report.tables.table import Table

if TYPE_CHECKING:
    import pandas as pd

    from vtpbench.report.stats.resampled import Samples

RIGHT = 0.5
"""Score from which an answer counts as right, and where less is better, up to which; only soft scores lie between 0 and 1."""
PLAIN = "downsample"
"""Pruner that tells easy questions from hard ones."""
CATEGORY = {"mmmu_acc": "subdomain"}
"""Field of the task's own result that names a question's category, where the question itself has none; by metric."""


def is_right(score: Any, info: BenchmarkInfo) -> Any:
    """Whether a score, or each of a column of scores, is that of a right answer."""
    return score >= RIGHT if info.higher_is_better else score <= RIGHT


@dataclass(frozen=True)
class SamplePart:
    """Records scored on a part of the questions; what a table of them needs besides."""

    title: str
    records: tuple[Record, ...]
    samples: Samples
    """Per-sample tables of `records`, the part's questions only."""
    facts: tuple[tuple[str, str], ...]
    """Lines for the footer."""


def part_tables(
    parts: Iterable[SamplePart], benchmarks: Sequence[str], pruners: Sequence[str], reference: str = REFERENCE
) -> tuple[Table, ...]:
    """Make the tables of parts, with intervals and tests; the arguments are those of `build`."""
    return tuple(
        replace(table, title=f"{table.title} · {part.title}", footer=(*part.facts, *table.footer))
        for part in parts
        for table in build(part.records, benchmarks, pruners, part.samples, reference)
    )


def hard(records: Iterable[Record], samples: Samples) -> tuple[SamplePart, ...]:
    """Score every cell on the questions that plain downsampling to the same budget gets wrong; one part per budget.

    Source: Liao et al., VTC-Bench, of which this is the hard group; easy questions need no clever pruner.

    Raises
    ------
    UserError
        No cell of the pruner `downsample` was measured.

    """
    parts = [part for setting in split(records) for part in _hard(setting.records, samples)]
    if not parts:
        raise UserError(f"hard questions are those that plain downsampling gets wrong; add `{PLAIN}` to the suite's pruners")
    return tuple(parts)


def by_category(records: Iterable[Record], samples: Samples) -> tuple[SamplePart, ...]:
    """Score every cell on the questions of each category of its benchmark; one part per benchmark, a column per category.

    Raises
    ------
    UserError
        No benchmark has categories whose scores can be recomputed; the message says why for each.

    """
    parts, why = [], []
    for setting in split(records):
        for label, same in sorted(groups(setting.records, lambda r: r.benchmark.label).items()):
            column = _Column.read(same, samples)
            if column.why_not is None and len(column.categories) > 1:
                parts.append(_by_category(label, column, samples))
            else:
                why.append(f"{label} ({column.why_not or 'its questions have no categories'})")
    if not parts:
        raise UserError(f"nothing to show by category: {'; '.join(dict.fromkeys(why))}")
    left_out = (("Not by category", "; ".join(dict.fromkeys(why))),) if why else ()
    return tuple(replace(part, facts=(*part.facts, *left_out)) for part in parts)


@dataclass(frozen=True)
class _Column:
    """Records of one benchmark, and whether they can be scored on a part of its questions."""

    records: Sequence[Record]
    categories: tuple[str, ...]
    why_not: str | None
    """Why its metric cannot be recomputed; None = it can, as the sums over all samples give every record's score."""

    @classmethod
    def read(cls, records: Sequence[Record], samples: Samples) -> _Column:
        """Read each per-sample table once."""
        from vtpbench.report.stats.sums import NoInterval, add_up, gives  # pandas, only where it is needed

        names: set[str] = set()
        why_not = None
        for record in records:
            if record.score is None or (table := samples(record)) is None:
                continue
            names.update(_categories(record, table))
            try:
                known = gives(add_up(record.benchmark, table), record.benchmark, record.score)
            except NoInterval:
                known = False
            if not known:
                why_not = f"{record.benchmark.metric} is no mean over questions that can be recomputed for a part of them"
        return cls(records, tuple(sorted(names - {""})), why_not)


def _categories(record: Record, table: pd.DataFrame) -> pd.Series[str]:
    """Category of each sample: what its question says, else what the task's own result does."""
    import pandas as pd

    metric = record.benchmark.terms[0]
    if metric not in CATEGORY or table["category"].any():
        return table["category"]
    found = (json.loads(text).get(metric) for text in table["detail"])
    names = [str(own.get(CATEGORY[metric], "")) if isinstance(own, dict) else "" for own in found]
    return pd.Series(names, index=table.index, dtype=str)


@dataclass
class _ColumnDraft:
    """Derived records, and the questions that each was scored on."""

    records: list[Record]
    questions: dict[str, tuple[Record, frozenset[str]]]

    def add(self, record: Record, part: pd.DataFrame | None, label: str, mark: str) -> None:
        """Score a record on some of its samples, under a label of its own."""
        from vtpbench.report.stats.sums import NoInterval, add_up

        info = record.benchmark.model_copy(update={"label": label})
        update = {"cell_id": f"{record.cell_id}:{mark}", "benchmark": info}
        if record.score is None:
            self.records.append(record.model_copy(update=update))
        elif part is None:
            self.refuse(record, "its per-sample table is missing", label, mark)
        else:
            try:
                score = add_up(info, part).score
            except NoInterval as e:
                return self.refuse(record, str(e), label, mark)
            own = [info.scale * value for value in part["score"].dropna()]
            is_mean = len(own) > 1 and agree(fmean(own), score)
            stderr = stdev(own) / sqrt(len(own)) if is_mean else None
            outcome: dict[str, Any] = {"score": score, "stderr": stderr, "n": len(own), "metrics": {}}
            self.records.append(record.model_copy(update={**update, **outcome}))
            self.questions[f"{record.cell_id}:{mark}"] = record, frozenset(part["sample"])
        return None

    def refuse(self, record: Record, why: str, label: str, mark: str) -> None:
        """Say why a record cannot be scored on some questions."""
        info = record.benchmark.model_copy(update={"label": label})
        outcome = {"status": "unsupported", "reason": why, "score": None, "stderr": None, "n": 0}
        self.records.append(record.model_copy(update={"cell_id": f"{record.cell_id}:{mark}", "benchmark": info, **outcome}))

    def part(self, title: str, samples: Samples, facts: tuple[tuple[str, str], ...]) -> SamplePart:
        """Turn what was collected into a part of the samples."""
        questions = self.questions

        def chosen(record: Record) -> pd.DataFrame | None:
            if record.cell_id not in questions:
                return None
            original, names = questions[record.cell_id]
            table = samples(original)
            return None if table is None else table[table["sample"].isin(names)].reset_index(drop=True)

        return SamplePart(title, tuple(self.records), chosen, facts)


def _by_category(label: str, column: _Column, samples: Samples) -> SamplePart:
    draft = _ColumnDraft([], {})
    for record in column.records:
        table = None if record.score is None else samples(record)
        parts = {} if table is None else dict(iter(table.groupby(_categories(record, table))))
        for name in column.categories:
            draft.add(record, parts.get(name), name, name)
    fact = f"those of the questions of {label}; a column has the questions of its category only, Avg is over categories"
    return draft.part(f"{label} by category", samples, (("Categories", fact),))


def _hard(records: Sequence[Record], samples: Samples) -> Iterator[SamplePart]:
    """Make one part per budget at which downsampling was measured."""
    by_label = groups(records, lambda r: r.benchmark.label)
    columns = {label: _Column.read(column, samples) for label, column in sorted(by_label.items())}
    budgets = groups((r for r in records if not is_vanilla(r)), lambda r: identity(r.budget))
    for same in budgets.values():
        if any(record.pruner.name == PLAIN for record in same):
            yield _hard_at(same, columns, samples)


def _hard_at(same: Sequence[Record], columns: Mapping[str, _Column], samples: Samples) -> SamplePart:
    draft, told = _ColumnDraft([], {}), []
    budget, mark = same[0].budget, f"hard@{same[0].budget.label}"
    plain = min((r for r in same if r.pruner.name == PLAIN), key=lambda r: (r.pruner.label, identity(r.pruner))).pruner
    for label, column in columns.items():
        judge = next((r for r in same if r.pruner == plain and r.benchmark.label == label and r.score is not None), None)
        known = None if judge is None else samples(judge)
        wrong = frozenset[str]() if judge is None or known is None else _wrong(judge, known)
        why = _why_not(column, known, wrong)
        for record in column.records:
            if not is_vanilla(record) and (record.budget != budget or record.pruner.name == PLAIN):
                continue
            if why is not None:
                draft.refuse(record, why, label, mark)
                continue
            table = None if record.score is None else samples(record)
            draft.add(record, None if table is None else table[table["sample"].isin(wrong)], label, mark)
        if why is None and known is not None:
            told.append(f"{len(wrong)} of {known['score'].notna().sum()} of {label}")
    fact = f"the questions that {plain.label} gets wrong at the same budget: {', '.join(told) or 'none'}"
    title = f"hard questions at {budget.label if budget.label.endswith('%') else f'{budget.label} tokens'}"
    return draft.part(title, samples, (("Hard questions", fact),))


def _wrong(judge: Record, table: pd.DataFrame) -> frozenset[str]:
    """Name the samples that a cell gets wrong, with all that are scored as one with them: pairs, rotations."""
    from vtpbench.report.stats.sums import together

    names = together(judge.benchmark, table)
    wrong = table["score"].notna() & ~is_right(table["score"], judge.benchmark)
    return frozenset(table.loc[names.isin(names[wrong]), "sample"])


def _why_not(column: _Column, known: pd.DataFrame | None, wrong: frozenset[str]) -> str | None:
    if column.why_not is not None:
        return column.why_not
    if known is None:
        return f"no {PLAIN} cell with per-sample scores at this budget"
    return None if wrong else f"{PLAIN} gets every question right"
