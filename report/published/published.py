"""Figures that a paper printed, as data; never a denominator for measured ones."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

PAPER = "paper"
"""Name of the source, where others are suites and folders."""
VANILLA = "Vanilla"
Scores = tuple[float | None, ...]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PaperBudget(_Frozen):
    """A budget as printed."""

    tokens: float | None
    percent: float
    asked: int | None = None
    """Budget of which `tokens` is what was observed, for rows that do not fill it."""


class PaperRow(_Frozen):
    """One row as printed; lists lie as the table's benchmarks do, None = printed "-"."""

    pruner: str = VANILLA
    score: Scores
    percent: Scores
    average: float | None


class PaperBlock(_Frozen):
    """The rows that a paper prints for one budget."""

    budget: PaperBudget
    rows: tuple[PaperRow, ...]


class KnownAs(_Frozen):
    """How a model is recognised: its family, and a part of its hub id, path or label, punctuation and case apart."""

    family: str
    names: tuple[str, ...]


class PaperTable(_Frozen):
    """One table of scores, or of averages of scores that another table prints."""

    title: str
    model: str
    known_as: KnownAs
    vision_tokens: int | None
    benchmarks: tuple[str, ...]
    vanilla: PaperRow
    blocks: tuple[PaperBlock, ...]

    @property
    def has_scores(self) -> bool:
        """Whether pruned rows print more than averages."""
        return any(score is not None for block in self.blocks for row in block.rows for score in row.score)


class PublishedColumn(_Frozen):
    """What stands beside a column of the paper."""

    tasks: tuple[str, ...]
    n: int | None = None
    """Questions of the printed split; None where another split is measured."""


class RowRule(_Frozen):
    """Which pruner stands beside a row of the paper."""

    name: str
    options: Mapping[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Allowed values of options that tell rows apart."""


class Reason(_Frozen):
    """Why measured and published figures may differ; an empty field concerns everything."""

    text: str
    tables: tuple[str, ...] = ()
    benchmarks: tuple[str, ...] = ()
    pruners: tuple[str, ...] = ()
    budgets: tuple[float, ...] = ()
    when: Mapping[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Dotted field of the record, and values of which it must have one."""
    unless: Mapping[str, tuple[Any, ...]] = Field(default_factory=dict)


class Note(_Frozen):
    """Something to know about tables."""

    tables: tuple[str, ...]
    text: str


class Source(_Frozen):
    """Where the figures come from."""

    paper: str
    url: str
    licence: str


class Published(_Frozen):
    """One file of published figures."""

    source: Source
    notes: tuple[Note, ...]
    benchmarks: Mapping[str, PublishedColumn]
    pruners: Mapping[str, RowRule]
    reasons: tuple[Reason, ...]
    tables: Mapping[str, PaperTable]
    """By name, `table1`; those that print no scores (FLOPs, latency) are left out."""


@cache
def published() -> Published:
    """Read the figures of the OC-VTP paper."""
    text = files("vtpbench.results.published").joinpath("oc_vtp_paper.yaml").read_text(encoding="utf-8")
    body = yaml.safe_load(text)
    tables = {name: table for name, table in body["tables"].items() if "benchmarks" in table}
    for name, table in body["tables"].items():
        if "averages_over" in table:
            tables[name] = _of_averages(table, tables[table["averages_over"]])
    return Published.model_validate({**body, "tables": tables})


def _of_averages(table: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Spell a table of averages (one column per variant of OC-VTP) like the table whose benchmarks it averages."""
    nothing = [None] * len(base["benchmarks"])
    blocks = [
        {
            "budget": block["budget"],
            "rows": [
                {"pruner": f"OC-VTP ({variant})", "score": nothing, "percent": nothing, "average": average}
                for variant, average in row.items()
                if variant != "tokens"
            ],
        }
        for row, block in zip(table["rows"], base["blocks"], strict=True)
    ]
    return {**base, "title": table["title"], "blocks": blocks}


def number(name: str) -> str:
    """Name of a table as a paper has it: `table1` -> `Table 1`."""
    return name.replace("table", "Table ")
