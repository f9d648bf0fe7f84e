"""Replicates of every cell of a table, from its per-sample tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from vtpbench.harness.records.record import Record
from vtpbench.report.stats.bootstrap import replicate
from vtpbench.report.stats.draws import Draws, draws, pooled, relative
from vtpbench.report.stats.same_pictures import same_pictures
from vtpbench.report.stats.sums import NoInterval, NoSamples, Sums, summarise
from vtpbench.report.tables.settings import groups, is_vanilla

Samples = Callable[[Record], pd.DataFrame | None]
"""Gives the per-sample table of a record, or None."""
Key = tuple[str, str]
NEAR_ZERO = 0.2
"""A denominator of which some replicate is less than this share rests on a handful of right answers, eight or so."""


@dataclass(frozen=True)
class _Found:
    """Replicates of one cell's score; cells are paired where `questions` are equal."""

    draws: Draws
    questions: int


@dataclass(frozen=True)
class _SummedColumn:
    """The cells of one benchmark as sums."""

    sums: dict[Key, Sums | NoInterval]
    names: dict[Key, str]
    """Of cells, the same in all versions of the code: what is drawn for a cell must not change with its id."""
    hashes: dict[str, str]
    """Perceptual hashes of its pictures by their names, as far as any table has them: those of earlier versions have none."""

    @classmethod
    def read(cls, records: Sequence[Record], samples: Samples) -> _SummedColumn:
        """Read each per-sample table once."""
        sums: dict[Key, Sums | NoInterval] = {}
        names = {key(record): f"{_row(record)} {record.seed}" for record in records}
        hashes: dict[str, str] = {}
        for record in records:
            table = samples(record)
            try:
                sums[key(record)] = _sums(record, table)
            except NoInterval as e:
                sums[key(record)] = e
            if table is not None and "perceptual_hash" in table:
                for image, seen in table[["image", "perceptual_hash"]].drop_duplicates().itertuples(index=False):
                    if seen:
                        hashes[image] = min(seen, hashes.get(image, seen))
        return cls(sums, names, hashes)

    def resample(self, replicates: int, same: Mapping[str, str]) -> dict[Key, _Found | NoInterval]:
        """Resample all cells, those with the same questions together."""
        found: dict[Key, _Found | NoInterval] = {}
        together: dict[int, dict[Key, Sums]] = {}
        for name, sums in self.sums.items():
            if isinstance(sums, NoInterval):
                found[name] = sums
            else:
                together.setdefault(sums.questions, {})[name] = sums
        for questions, cells in together.items():
            scores = replicate([self.names[cell] for cell in cells], list(cells.values()), replicates, same)
            for (name, sums), values in zip(cells.items(), scores.T, strict=True):
                found[name] = _Found(draws(values, sums), questions)
        return found


class ResampledScores:
    """What the samples of a table's records say about how far its numbers can be trusted."""

    def __init__(self, records: Iterable[Record], samples: Samples, replicates: int) -> None:
        self._found: dict[Key, _Found | NoInterval] = {}
        self._vanilla: dict[str, list[Record]] = {}
        columns: list[_SummedColumn] = []
        for label, column in groups((r for r in records if r.score is not None), lambda r: r.benchmark.label).items():
            columns.append(_SummedColumn.read(column, samples))
            self._vanilla[label] = [r for r in column if is_vanilla(r)]
        same = same_pictures([summed.hashes for summed in columns])
        for summed in columns:
            self._found |= summed.resample(replicates, same)

    def score(self, records: Sequence[Record]) -> Draws:
        """Replicates of the score, mean over the records, which are the seeds of one cell; raises `NoInterval`."""
        return self._pool(records).draws

    def relative(self, records: Sequence[Record]) -> Draws:
        """Replicates of the relative accuracy, vanilla's error included; raises `NoInterval`."""
        own, vanilla = self._pool(records), self._pool(self._vanilla[records[0].benchmark.label])
        if own.questions != vanilla.questions:
            raise NoInterval("its samples are not vanilla's")
        if (vanilla.draws.values <= NEAR_ZERO * vanilla.draws.estimate).any():
            raise NoInterval("vanilla's score is too near 0 to divide by")
        return relative(own.draws, vanilla.draws, records[0].benchmark.higher_is_better)

    def _pool(self, records: Sequence[Record]) -> _Found:
        seeds: list[_Found] = []
        for record in records:
            cell = self._found[key(record)]
            if isinstance(cell, NoInterval):
                raise cell
            seeds.append(cell)
        if len({cell.questions for cell in seeds}) > 1:
            raise NoInterval("its seeds have different samples")
        found = pooled(_row(records[0]), {r.seed: cell.draws for r, cell in zip(records, seeds, strict=True)})
        return _Found(found, seeds[0].questions)


def _row(record: Record) -> str:
    """Name the row of a table that a record belongs to: the same on all benchmarks, and in all versions of the code."""
    return f"{record.pruner.name} {sorted(record.pruner.options.items())} {record.budget.label}"


def key(record: Record) -> Key:
    """Identity of a cell within a report."""
    return record.suite, record.cell_id


def _sums(record: Record, samples: pd.DataFrame | None) -> Sums:
    if samples is None or record.score is None:
        raise NoSamples("no per-sample table")
    return summarise(record.benchmark, record.score, samples)
