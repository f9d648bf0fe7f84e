"""How many questions a benchmark asks, about how many pictures: counted where the data are here, else as published."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vtpbench.harness.host import hub
from vtpbench.harness.suite.task_data import is_here, local_data

if TYPE_CHECKING:
    from vtpbench.harness.suite.benchmarks import Benchmark


@dataclass(frozen=True)
class QuestionCount:
    """What a benchmark will ask.

    Attributes
    ----------
    questions : limit considered; None where nobody knows
    pictures : that they are about; as many as questions where nothing is published
    here : whether the data are on this machine; else the counts are the published ones

    """

    questions: int | None
    pictures: int | None
    here: bool


def count_questions(benchmark: Benchmark, limit: int | None) -> QuestionCount:
    """Count what a benchmark asks under a limit in force."""
    here = is_here(benchmark)
    whole = (_rows(benchmark) if here else None) or benchmark.n
    if whole is None:
        return QuestionCount(limit, limit, here)
    asked = whole if limit is None else min(limit, whole)
    each = 1.0 if benchmark.pictures is None or benchmark.n is None else benchmark.pictures / benchmark.n
    return QuestionCount(asked, math.ceil(asked * each), here)


def _rows(benchmark: Benchmark) -> int | None:
    """Count rows of the split that is asked; None for a form of data that is not counted."""
    definition = benchmark.definition()
    split = str(definition.get("test_split") or definition.get("validation_split"))
    files = local_data(benchmark)
    if files is None:
        return _cached_rows(str(definition["dataset_path"]), definition.get("dataset_name"), split)
    named = [path for at, path in files.items() if at.startswith(f"{split}/") or path.name.startswith((f"{split}-", f"{split}."))]
    return _rows_of(named or (files.values() if len(files) == 1 else ()))


def _cached_rows(dataset: str, config: str | None, split: str) -> int | None:
    """Count rows by what `datasets` notes beside its copy."""
    copy = hub.cached_copy(dataset, config)
    if copy is None:
        return None
    splits = json.loads((copy / "dataset_info.json").read_text(encoding="utf-8")).get("splits") or {}
    found = splits.get(split) or {}
    return found.get("num_examples")


def _rows_of(files: Iterable[Path]) -> int | None:
    counts = [_rows_in(file) for file in files]
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def _rows_in(file: Path) -> int | None:
    if file.suffix == ".parquet":
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import read_metadata

        try:
            return int(read_metadata(file).num_rows)
        except ArrowInvalid:  # no Parquet: a run will say so
            return None
    if file.suffix == ".jsonl":
        with file.open("rb") as lines:
            return sum(bool(line.strip()) for line in lines)
    return None
