"""What can stand in a suite, and which suites there are, as rows for `vtpbench list`."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vtpbench.harness.cli.pruner_table import list_pruners
from vtpbench.harness.host.files import read_text
from vtpbench.harness.suite import benchmarks as known
from vtpbench.harness.suite.suite import load, packaged_suites
from vtpbench.pruners.registry import find

Rows = list[dict[str, Any]]
BRIEF = {
    "benchmarks": ("label", "task", "split", "questions", "metric", "about"),
    "pruners": ("name", "year", "venue", "acts_at", "needs", "question", "options", "distribution"),
}
"""Columns that fit on a terminal, where a list has more; scripts get all of them."""


def pruners() -> Rows:
    """List registered pruners: year and venue, where they act, what they need and whether that is the question, options, source.

    Raises `UserError` for one that cannot be imported.
    """
    return [{**dataclasses.asdict(row), "options": options_of(row.name)} for row in list_pruners()]


def models() -> Rows:
    """List model families by the `model_type` of a checkpoint's configuration; raises `UserError` for one that breaks."""
    from vtpbench.harness.models.registry import entries

    found = [(entry, entry.load()) for _, entry in sorted(entries().items())]
    return [
        {
            "model_type": entry.name,
            "preprocessing": ", ".join(cls.preprocessings),
            "about": _first_line(cls),
            "distribution": entry.distribution,
        }
        for entry, cls in found
    ]


def benchmarks() -> Rows:
    """List the benchmarks that come with vtpbench."""
    return [
        {
            "label": b.label,
            "task": b.task,
            "split": b.split,
            "questions": b.n,
            "metric": b.metric,
            "unit": b.unit,
            "scale": b.scale,
            "per_sample": b.per_sample,
            "resampled_by": "image",  # `report.stats` draws all questions on one image together
            "needs": ", ".join(b.needs),
            "profiles": "; ".join(f"{name}: {changes.why}" for name, changes in b.profiles.items()),
            "about": b.card,
        }
        for b in known.registry().values()
    ]


def suites() -> Rows:
    """List the suites that come with vtpbench."""
    return [_suite(name, file) for name, file in packaged_suites().items()]


LISTS: dict[str, Callable[[], Rows]] = {"pruners": pruners, "models": models, "benchmarks": benchmarks, "suites": suites}
"""What can be listed."""


def _suite(name: str, file: Path) -> dict[str, Any]:
    """State what a suite measures; the first comment of its file says what it is for."""
    suite = load(file)
    rows = {spec.label for matrix in suite.matrix for spec in matrix.pruners}
    return {
        "name": name,
        "models": ", ".join(model.label for model in suite.models),
        "pruners": len(rows),
        "benchmarks": len(suite.benchmarks),
        "about": read_text(file).partition("\n")[0].removeprefix("#").strip(),
    }


def options_of(name: str) -> str:
    """List the options of a registered pruner with their defaults."""
    fields = [field for field in dataclasses.fields(find(name).load()) if field.init and field.name != "seed"]
    defaults = {field.name: repr(field.default) if field.default is not dataclasses.MISSING else "..." for field in fields}
    return ", ".join(f"{option}={default}" for option, default in defaults.items())


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]
