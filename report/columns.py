"""Tables over a part of the questions: those that plain downsampling gets wrong, or those of one ability.

Both make records of their own from per-sample scores, which the report's one way to make tables then takes: vanilla is scored
on the same questions, and a metric that is no mean of its samples is not recomputed but says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from vtpbench.harness.record import Record
from vtpbench.pruners.errors import UserError
from vtpbench.report.settings import groups, identity, is_vanilla, split
from vtpbench.report.stats import REFERENCE
from vtpbench.report.table import Table, build

if TYPE_CHECKING:
    import pandas as pd

    from vtpbench.report.stats.evidence import Samples

RIGHT = 0.5
"""Score from which an answer counts as right; only soft scores lie between 0 and 1."""
PLAIN = "downsample"
"""Pruner that tells easy questions from hard ones."""
MEAN_TOLERANCE = 1e-5
"""Tasks round their aggregates to five decimals at the least."""


@dataclass(frozen=True)
class Part:
    """Records scored on a part of the questions; what a table of them needs besides."""

    title: str
    records: tuple[Record, ...]
    samples: Samples
    """Per-sample tables of `records`, the part's questions only."""
    facts: tuple[tuple[str, str], ...]
    """Lines for the footer."""


def part_tables(
    parts: Iterable[Part], benchmarks: Sequence[str], pruners: Sequence[str], reference: str | None
) -> tuple[Table, ...]:
    """Make the tables of parts; with a `reference` (see `build`), intervals and tests, too."""
    return tuple(
        replace(table, title=f"{table.title} · {part.title}", footer=(*part.facts, *table.footer))
        for part in parts
        for table in build(
            part.records, benchmarks, pruners, None if reference is None else part.samples, reference or REFERENCE
        )
    )


def hard(records: Iterable[Record], samples: Samples) -> tuple[Part, ...]:
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


def by_category(records: Iterable[Record], samples: Samples) -> tuple[Part, ...]:
    """Score every cell on the questions of each category of its benchmark; one part per benchmark, a column per category.

    Raises
    ------
    UserError
        No benchmark has categories whose scores can be recomputed; the message says why for each.

    """
    parts, why = [], []
    for setting in split(records):
        for label, column in groups(setting.records, lambda r: r.benchmark.label).items():
            scores = _Scores.read(column, samples)
            names = sorted({name for own in scores.categories.values() for name in own.values() if name})
            if scores.is_mean and len(names) > 1:
                parts.append(_by_category(label, column, scores, names, samples))
            else:
                why.append(f"{label} ({'its questions have no categories' if scores.is_mean else _no_mean(column[0])})")
    if not parts:
        raise UserError(f"nothing to show by category: {'; '.join(dict.fromkeys(why))}")
    left_out = (("Not by category", "; ".join(dict.fromkeys(why))),) if why else ()
    return tuple(replace(part, facts=(*part.facts, *left_out)) for part in parts)


@dataclass(frozen=True)
class _Scores:
    """Per-sample scores of the cells of one benchmark, by cell id and sample."""

    scores: Mapping[str, Mapping[str, float]]
    categories: Mapping[str, Mapping[str, str]]
    is_mean: bool
    """Whether every cell's score is the mean of its samples."""

    @classmethod
    def read(cls, column: Sequence[Record], samples: Samples) -> _Scores:
        """Read each per-sample table once."""
        scores: dict[str, dict[str, float]] = {}
        categories: dict[str, dict[str, str]] = {}
        is_mean = True
        for record in column:
            if record.score is None or (table := samples(record)) is None:
                continue
            names = table["sample"].tolist()
            categories[record.cell_id] = dict(zip(names, table["category"].tolist(), strict=True))
            if table["score"].isna().any():
                is_mean = False
                continue
            own = scores[record.cell_id] = dict(zip(names, table["score"].tolist(), strict=True))
            scale = record.benchmark.scale
            is_mean &= bool(own) and abs(scale * fmean(own.values()) - record.score) <= MEAN_TOLERANCE * scale
        return cls(scores, categories, is_mean)


@dataclass
class _Draft:
    """Derived records, and the questions that each was scored on."""

    records: list[Record]
    questions: dict[str, tuple[Record, frozenset[str]]]

    def add(self, record: Record, own: Mapping[str, float] | None, chosen: frozenset[str], label: str, mark: str) -> None:
        """Score a record on some questions, under a label of its own."""
        info = record.benchmark.model_copy(update={"label": label})
        update = {"cell_id": f"{record.cell_id}:{mark}", "benchmark": info}
        if record.score is None:
            self.records.append(record.model_copy(update=update))
        elif own is None:
            self.refuse(record, "its per-sample table is missing", label, mark)
        else:
            values = [record.benchmark.scale * score for sample, score in own.items() if sample in chosen]
            stderr = stdev(values) / sqrt(len(values)) if len(values) > 1 else None
            outcome: dict[str, Any] = {"score": fmean(values), "stderr": stderr, "n": len(values), "metrics": {}}
            self.records.append(record.model_copy(update={**update, **outcome}))
            self.questions[f"{record.cell_id}:{mark}"] = record, chosen

    def refuse(self, record: Record, why: str, label: str, mark: str) -> None:
        """Say why a record cannot be scored on some questions."""
        info = record.benchmark.model_copy(update={"label": label})
        outcome = {"status": "unsupported", "reason": why, "score": None, "stderr": None, "n": 0}
        self.records.append(record.model_copy(update={"cell_id": f"{record.cell_id}:{mark}", "benchmark": info, **outcome}))

    def part(self, title: str, samples: Samples, facts: tuple[tuple[str, str], ...]) -> Part:
        """Finish."""
        questions = self.questions

        def chosen(record: Record) -> pd.DataFrame | None:
            if record.cell_id not in questions:
                return None
            original, names = questions[record.cell_id]
            table = samples(original)
            return None if table is None else table[table["sample"].isin(names)].reset_index(drop=True)

        return Part(title, tuple(self.records), chosen, facts)


def _by_category(label: str, column: Sequence[Record], scores: _Scores, names: Sequence[str], samples: Samples) -> Part:
    draft = _Draft([], {})
    for name in names:
        for record in column:
            own = scores.categories.get(record.cell_id, {})
            chosen = frozenset(sample for sample, category in own.items() if category == name)
            draft.add(record, scores.scores.get(record.cell_id) if chosen else None, chosen, name, name)
    fact = f"those of the questions of {label}; a column has the questions of its category only, Avg is over categories"
    return draft.part(f"{label} by category", samples, (("Categories", fact),))


def _hard(records: Sequence[Record], samples: Samples) -> Iterator[Part]:
    """Make one part per budget at which downsampling was measured."""
    by_label = groups(records, lambda r: r.benchmark.label)
    columns = {label: (column, _Scores.read(column, samples)) for label, column in by_label.items()}
    budgets = groups((r for r in records if not is_vanilla(r)), lambda r: identity(r.budget))
    for same in budgets.values():
        if any(record.pruner.name == PLAIN for record in same):
            yield _hard_at(same, columns, samples)


def _hard_at(same: Sequence[Record], columns: Mapping[str, tuple[Sequence[Record], _Scores]], samples: Samples) -> Part:
    draft, told = _Draft([], {}), []
    budget = same[0].budget.label
    plain = min((r for r in same if r.pruner.name == PLAIN), key=lambda r: (r.pruner.label, identity(r.pruner))).pruner
    for label, (column, scores) in columns.items():
        own = [r for r in column if is_vanilla(r) or (r.budget == same[0].budget and r.pruner.name != PLAIN)]
        judge = next((r for r in same if r.pruner == plain and r.benchmark.label == label), None)
        known = scores.scores.get(judge.cell_id) if judge else None
        wrong = frozenset(sample for sample, score in (known or {}).items() if score < RIGHT)
        why = _why_not(scores, column[0], known, wrong)
        for record in own:
            if why is None:
                draft.add(record, scores.scores.get(record.cell_id), wrong, label, f"hard@{budget}")
            else:
                draft.refuse(record, why, label, f"hard@{budget}")
        if why is None:
            told.append(f"{len(wrong)} of {len(known or {})} of {label}")
    fact = f"the questions that {plain.label} gets wrong at the same budget: {', '.join(told) or 'none'}"
    title = f"hard questions at {budget if budget.endswith('%') else f'{budget} tokens'}"
    return draft.part(title, samples, (("Hard questions", fact),))


def _why_not(scores: _Scores, record: Record, known: Mapping[str, float] | None, wrong: frozenset[str]) -> str | None:
    if not scores.is_mean:
        return _no_mean(record)
    if known is None:
        return f"no {PLAIN} cell with per-sample scores at this budget"
    return None if wrong else f"{PLAIN} gets every question right"


def _no_mean(record: Record) -> str:
    return f"{record.benchmark.metric} is no mean over questions, so that it cannot be recomputed for a part of them"
