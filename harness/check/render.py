"""Show what the conformance kit found."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Literal

from vtpbench.harness.check.family_kit import FamilyReport
from vtpbench.harness.check.family_properties import FAMILY_PROPERTIES
from vtpbench.harness.check.kit import CheckReport, PropertyResult
from vtpbench.harness.check.properties import PROPERTIES
from vtpbench.harness.host.text_grid import text_grid
from vtpbench.pruners.errors import UserError

Rows = list[list[str]]
FORMATS = ("plain", "markdown", "json")


def render(report: CheckReport, format: Literal["plain", "markdown", "json"] = "plain", width: int | None = None) -> str:
    """Write a report: a table of properties and families, then the reason for all that is no pass.

    `width` is that of the terminal on which plain text is read; None = lines are as long as they are.
    """
    if format not in FORMATS:
        raise UserError(f"unknown format '{format}'; use {', '.join(FORMATS)}")
    if format == "json":
        return json.dumps({**dataclasses.asdict(report), "ok": report.ok}, indent=1, ensure_ascii=False, default=str)
    families = list(dict.fromkeys(result.family for result in report.results))
    status = {(result.property, result.family): _word(result) for result in report.results}
    rows = [["property", *families, "meaning"]]
    rows += [[p.name, *(status[p.name, family] for family in families), p.meaning] for p in PROPERTIES]
    notes = _notes(report.results, families, len(PROPERTIES))
    if format == "markdown":
        return "\n".join([*_markdown(rows), *([""] if notes else []), *(f"- {note}" for note in notes)]) + "\n"
    return (
        "\n".join(
            [*text_grid(rows, width), "", *_folded(notes, width), f"{report.pruner} of {report.distribution}: {_verdict(report)}"]
        )
        + "\n"
    )


def render_family(report: FamilyReport, format: Literal["plain", "json"] = "plain", width: int | None = None) -> str:
    """Write a report on a model family: a table of properties, then what there is to say of them."""
    if format == "json":
        return json.dumps({**dataclasses.asdict(report), "ok": report.ok}, indent=1, ensure_ascii=False)
    results = {result.property: result for result in report.results}
    rows = [["property", "result", "meaning"]]
    rows += [[p.name, _word(results[p.name]), p.meaning] for p in FAMILY_PROPERTIES]
    families = list(dict.fromkeys(result.family for result in report.results))
    notes = _notes(report.results, families, len(FAMILY_PROPERTIES))
    return (
        "\n".join(
            [*text_grid(rows, width), "", *_folded(notes, width), f"{report.model} of {report.distribution}: {_verdict(report)}"]
        )
        + "\n"
    )


def _folded(notes: list[str], width: int | None) -> list[str]:
    """Hold notes to a width, between words."""
    if width is None:
        return notes
    fold = partial(textwrap.wrap, width=width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return [line for note in notes for line in fold(note)]


def _verdict(report: CheckReport | FamilyReport) -> str:
    judged = any(result.status in ("pass", "fail") for result in report.results)
    return "conforms" if report.ok else "does not conform" if judged else "could not be judged"


def matrix(reports: Sequence[CheckReport]) -> str:
    """Write one markdown table for many pruners: how many properties pass, by family."""
    families = list(dict.fromkeys(result.family for report in reports for result in report.results))
    rows = [["pruner", *families]]
    for report in reports:
        name = ", ".join([report.pruner, *(f"`{option}: {value}`" for option, value in report.options.items())])
        rows.append([name, *(_summary([r for r in report.results if r.family == family]) for family in families)])
    return "\n".join(_markdown(rows)) + "\n"


def _summary(results: Sequence[PropertyResult]) -> str:
    counts = Counter(_word(result) for result in results)
    if len(counts) == 1 and "pass" not in counts and "FAIL" not in counts:
        return next(iter(counts), "")
    return ", ".join(f"{counts[word]} {word}" for word in ("pass", "FAIL", "n/a", "infeasible", "unsupported") if counts[word])


def _word(result: PropertyResult) -> str:
    return "FAIL" if result.status == "fail" else result.status


def _notes(results: Sequence[PropertyResult], families: Sequence[str], properties: int) -> list[str]:
    """Reasons, each once, failures first; exceptions of one line are one, though their numbers may differ."""
    where: dict[tuple[str, str], dict[str, list[str]]] = {}
    reasons: dict[tuple[str, str], str] = {}
    for result in sorted(results, key=lambda result: result.status != "fail"):
        if result.reason:
            key = (_word(result), result.line or result.reason)
            reasons.setdefault(key, f"{result.reason}, at {result.line}" if result.line else result.reason)
            where.setdefault(key, {}).setdefault(result.property, []).append(result.family)
    notes = []
    for (word, cause), places in where.items():
        reason = reasons[word, cause]
        named = "all properties" if len(places) == properties else ", ".join(places)
        on = sorted({family for found in places.values() for family in found}, key=list(families).index)
        notes.append(f"{word}: {named} on {', '.join(on)}: {reason}")
    return notes


def _markdown(rows: Rows) -> list[str]:
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return [lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]
