"""Answers for the page's browser: each pruned cell beside vanilla, the samples that differ first."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from vtpbench.harness.records.record import BenchmarkInfo, Record
from vtpbench.report.analyses.columns import is_right
from vtpbench.report.html.kept import EmbeddedPictures
from vtpbench.report.html.view import Line, Section
from vtpbench.report.tables.table import Table

if TYPE_CHECKING:
    import pandas as pd

    from vtpbench.report.stats.resampled import Samples

MOST_PER_CELL, FEWEST_PER_CELL, IN_ALL = 200, 20, 20_000
"""Samples on the page: more would make a file that no browser likes to open."""
LONGEST = 1000
"""Characters of a text; the rest is cut, and said to be."""
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_WELCOME = "\n\t\u200c\u200d"  # joiners belong to the spelling of some scripts


def per_cell(tables: Sequence[Table]) -> int:
    """Share the page's samples among the cells of all tables."""
    cells = sum(len(entry.records) for table in tables for block in table.blocks for row in block.rows for entry in row.entries)
    return max(FEWEST_PER_CELL, min(MOST_PER_CELL, IN_ALL // max(1, cells)))


def visible(text: str) -> str:
    """Cut a long text, and spell out characters that would hide or reorder what stands beside them."""
    lines = text.replace("\r\n", "\n")
    shown = lines if len(lines) <= LONGEST else f"{lines[:LONGEST]} … ({len(lines) - LONGEST} more characters)"
    return "".join(c if c in _WELCOME or unicodedata.category(c) not in _UNSEEN else f"⟨U+{ord(c):04X}⟩" for c in shown)


def browser(section: Section, read: Samples, limit: int, gallery: EmbeddedPictures) -> dict[str, Any]:
    """Collect what the page embeds of a table's samples, at most `limit` of a cell.

    Each benchmark holds its questions once: `[sample, image, category, prompt, target, vanilla answer, vanilla score]`. Its
    cells refer to them: `[question, answer, score, tokens, "broken" | "mended" | "", kept]`. Breaking and mending is as in
    `vtpbench.report.analyses.flips`, kept tokens as `gallery` gives them.
    """
    found = (_benchmark(section, column, read, limit, gallery) for column in range(len(section.table.columns)))
    return {"benchmarks": [benchmark for benchmark in found if benchmark["cells"]]}


def _benchmark(section: Section, column: int, read: Samples, limit: int, gallery: EmbeddedPictures) -> dict[str, Any]:
    lines = [line for group in section.groups for line in group.lines]
    vanilla = _vanilla(lines, column, read)
    questions: dict[str, tuple[int, list[Any]]] = {}
    cells = []
    for line, record in _pruned(lines, column):
        frame = read(record)
        if frame is not None:
            cell = _cell(_joined(frame, vanilla), record.benchmark, limit, questions, gallery)
            cells.append({"row": line.id, "seed": record.seed, **cell})
    label = visible(section.table.columns[column])
    return {"label": label, "cells": cells, "questions": [question for _, question in questions.values()]}


def _pruned(lines: Sequence[Line], column: int) -> Iterator[tuple[Line, Record]]:
    for line in lines:
        if line.pruner >= 0:
            yield from ((line, r) for r in sorted(line.row.entries[column].records, key=lambda r: r.seed) if r.status == "ok")


def _vanilla(lines: Sequence[Line], column: int, read: Samples) -> pd.DataFrame | None:
    """Vanilla's samples; of several seeds the first, since vanilla does not depend on it."""
    records = [r for line in lines if line.pruner < 0 for r in line.row.entries[column].records if r.status == "ok"]
    frames = (read(record) for record in sorted(records, key=lambda r: r.seed))
    return next((frame for frame in frames if frame is not None), None)


def _joined(frame: pd.DataFrame, vanilla: pd.DataFrame | None) -> pd.DataFrame:
    """Put vanilla's `answer` and `score` beside a cell's; a sample that vanilla lacks has neither."""
    source = frame.iloc[:0] if vanilla is None else vanilla
    columns = source[["sample", "answer", "score"]].drop_duplicates("sample")
    joined: pd.DataFrame = frame.merge(columns, on="sample", how="left", suffixes=("", "_vanilla"))
    joined["kept"] = joined["kept"].fillna("")
    joined[["score", "score_vanilla"]] = joined[["score", "score_vanilla"]].astype(float)
    return joined


def _cell(
    joined: pd.DataFrame,
    info: BenchmarkInfo,
    limit: int,
    questions: dict[str, tuple[int, list[Any]]],
    gallery: EmbeddedPictures,
) -> dict[str, Any]:
    both = joined[["score", "score_vanilla"]].notna().all(axis=1)
    was, now = is_right(joined.score_vanilla, info), is_right(joined.score, info)
    broken, mended = both & was & ~now, both & now & ~was
    rank = 2 * (joined.kept == "") - 1 * (broken | mended)  # the few with pictures first, then what broke or was mended
    order = rank.sort_values(kind="stable").index[:limit].sort_values()
    rows = []
    for index, row in zip(order, joined.loc[order].to_dict("records"), strict=True):
        facts = [visible(str(row[name])) for name in ("sample", "image", "category", "prompt", "target")]
        before = None if row["answer_vanilla"] != row["answer_vanilla"] else visible(str(row["answer_vanilla"]))
        question, _ = questions.setdefault(row["sample"], (len(questions), [*facts, before, _number(row["score_vanilla"])]))
        verdict = "broken" if broken[index] else "mended" if mended[index] else ""
        own = (visible(str(row["answer"])), _number(row["score"]), _number(row["tokens"]), verdict)
        rows.append([question, *own, gallery.add(row["kept"])])
    counts = {"compared": both, "broken": broken, "mended": mended}
    return {"n": len(joined), **{name: int(which.sum()) for name, which in counts.items()}, "rows": rows}


def _number(value: float | None) -> float | None:
    """Drop what JSON has no word for."""
    return None if value is None or value != value else round(float(value), 4)
