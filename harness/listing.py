"""What can stand in a suite, as rows for `vtpbench list`."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from vtpbench.harness import benchmarks as known
from vtpbench.pruners.registry import entries

Rows = list[dict[str, Any]]


def pruners() -> Rows:
    """List registered pruners with their options and defaults; raises `UserError` for one that cannot be imported."""
    rows: Rows = []
    for name, entry in sorted(entries().items()):
        cls = entry.load()
        fields = [field for field in dataclasses.fields(cls) if field.init and field.name != "seed"]
        options = {field.name: repr(field.default) if field.default is not dataclasses.MISSING else "..." for field in fields}
        rows.append(
            {
                "name": name,
                "options": ", ".join(f"{option}={default}" for option, default in options.items()),
                "from": entry.distribution,
                "source": cls.source,
            }
        )
    return rows


def models() -> Rows:
    """List model families by the `model_type` of a checkpoint's configuration."""
    from vtpbench.harness.models.load import families

    return [{"model_type": name, "about": _first_line(cls)} for name, cls in sorted(families().items())]


def benchmarks() -> Rows:
    """List the benchmarks that come with vtpbench."""
    return [
        {"label": b.label, "task": b.task, "metric": b.metric, "questions": b.n, "about": b.card}
        for b in known.registry().values()
    ]


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]
