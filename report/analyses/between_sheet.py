"""Two rows against each other, laid out for reading and as rows for scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby

from vtpbench.report.analyses.between import AVG, Between, Disagreement, PairedDifference
from vtpbench.report.analyses.columns import RIGHT
from vtpbench.report.formats.sheet import Sheet, SheetTable, Value
from vtpbench.report.tables.layout import NONE, clean
from vtpbench.report.tables.rounding import half_up, paper

FIELDS = (
    *("table", "one", "other", "kind", "benchmark", "category", "seed"),
    *("one_score", "other_score", "difference", "low", "high", "p_value", "broken", "mended", "n"),
    *("sample", "image", "picture", "prompt", "target", "one_answer", "other_answer"),
)
SHOWN = 8
"""Questions of each kind that are laid out; scripts get all."""
LONGEST = 60
"""Characters of a text that is laid out."""


def between_sheet(found: Sequence[Between]) -> Sheet:
    """Lay comparisons out; rows for scripts are of the kinds `difference`, `broken` and `mended`."""
    grids = [grid for one in found for grid in (_differences(one), *_categories(one), *_questions(one))]
    return Sheet(tuple(grids), FIELDS, tuple(row for one in found for row in _values(one)))


def _differences(found: Between) -> SheetTable:
    one, other = found.names
    average = found.benchmarks[-1]
    facts = [
        (
            "Scores",
            f"of each benchmark; {AVG} in per cent of vanilla; differences of both are of relative accuracies, in points of it",
        ),
        (
            "Interval",
            "95 %, each line by itself: paired bootstrap over images, with vanilla's error; none of fewer than 10 images",
        ),
        *([(AVG, f"p = {average.p_value:.2g} for no difference")] if average.p_value is not None else []),
        ("Broken", f"questions that {one} has wrong and {other} right; mended: the other way round; of those both answered"),
        ("Right", f"a score of at least {RIGHT:g}; of what is better the less it is, of at most {RIGHT:g}"),
    ]
    return SheetTable(
        f"{one} against {other} · {found.title}", _columns("Benchmark", found), (*map(_line, found.benchmarks),), tuple(facts)
    )


def _categories(found: Between) -> Iterator[SheetTable]:
    if found.categories:
        lines: list[tuple[str, ...]] = []
        for benchmark, own in groupby(found.categories, lambda d: d.benchmark):
            lines += [(benchmark,), *map(_line, own)]
        yield SheetTable(f"{' against '.join(found.names)} · by category", _columns("Category", found), tuple(lines))


def _columns(first: str, found: Between) -> tuple[str, ...]:
    return (first, *found.names, "Difference", "95 % interval", "Broken", "Mended", "of")


def _line(d: PairedDifference) -> tuple[str, ...]:
    per_cent = " %" if d.benchmark == AVG else ""
    scores = (NONE if score is None else f"{paper(score)}{per_cent}" for score in (d.one, d.other))
    gap = NONE if d.difference is None else signed(d.difference)
    interval = NONE if d.interval is None else " to ".join(map(signed, d.interval))
    return (d.category or d.benchmark, *scores, gap, interval, str(d.broken), str(d.mended), str(d.n))


def signed(value: float) -> str:
    """Print a difference to one decimal, with its sign."""
    rounded = half_up(value, 1)
    return f"{rounded:+}" if rounded else "0.0"


def _questions(found: Between) -> Iterator[SheetTable]:
    one, other = found.names
    for kind, words in (("broken", f"{one} wrong, {other} right"), ("mended", f"{one} right, {other} wrong")):
        own: dict[tuple[str, str], Disagreement] = {}
        for d in found.disagreements:
            if d.kind == kind:
                own.setdefault((d.benchmark, d.one["sample"]), d)  # once for all seeds
        ordered = sorted(own.values(), key=lambda d: not picture(d))  # those whose picture was kept first
        if ordered:
            shown = ordered[:SHOWN]
            part = f"{len(shown)} of {len(ordered)} questions" if len(shown) < len(ordered) else f"{len(ordered)} questions"
            facts = (
                ("Picture", "file in the folder pictures of the results where it was kept, else its name in per-sample tables"),
                ("All", "questions are in --format json and csv, for each seed"),
            )
            columns = ("Benchmark", "Question", "Picture", "Prompt", "Target", one, other)
            title = f"{kind}: {words} · {part}"
            yield SheetTable(title, columns, (*map(_question, shown),), facts, text_columns=len(columns))


def _question(d: Disagreement) -> tuple[str, ...]:
    texts = (d.one["prompt"], d.one["target"], d.one["answer"], d.other["answer"])
    return (d.benchmark, str(d.one["sample"]), picture(d) or str(d.one["image"]), *(_short(str(text)) for text in texts))


def _short(text: str) -> str:
    line = clean(text)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def picture(d: Disagreement) -> str:
    """Name the file of the question's first picture; empty where none was kept."""
    kept = json.loads(d.one["kept"] or d.other["kept"] or "[]")
    return f"{kept[0]['picture']}.jpg" if kept else ""


def _values(found: Between) -> Iterator[dict[str, Value]]:
    names: dict[str, Value] = {"table": found.title, "one": found.names[0], "other": found.names[1]}
    empty: dict[str, Value] = dict.fromkeys(FIELDS)
    for d in (*found.benchmarks, *found.categories):
        low, high = d.interval or (None, None)
        numbers = {"one_score": d.one, "other_score": d.other, "difference": d.difference, "low": low, "high": high}
        counts = {"p_value": d.p_value, "broken": d.broken, "mended": d.mended, "n": d.n}
        yield {**empty, **names, "kind": "difference", "benchmark": d.benchmark, "category": d.category, **numbers, **counts}
    for q in found.disagreements:
        texts = {name: q.one[name] for name in ("sample", "image", "category", "prompt", "target")}
        answers = {"one_answer": q.one["answer"], "other_answer": q.other["answer"], "picture": picture(q)}
        scores = {"one_score": q.one["score"], "other_score": q.other["score"], "seed": q.seed}
        yield {**empty, **names, "kind": q.kind, "benchmark": q.benchmark, **texts, **answers, **scores}
