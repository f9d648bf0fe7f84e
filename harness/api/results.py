"""Run a suite, read what has been measured, and look at it as data frames."""

from __future__ import annotations

import io
import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtpbench.harness.gather.sources import Sources, gather, of_cells
from vtpbench.harness.host.console import console
from vtpbench.harness.host.device import open_device
from vtpbench.harness.run.batch_size import gpu_bytes
from vtpbench.harness.run.job import Inspection, RunOptions, execute, make_job
from vtpbench.harness.run.progress import Progress, make_progress
from vtpbench.report.formats.data import FIELDS, cell_facts, measured
from vtpbench.report.formats.render import render
from vtpbench.report.stats.build import build
from vtpbench.report.tables.settings import require_comparable
from vtpbench.report.tables.table import Table

if TYPE_CHECKING:
    import pandas as pd

NUMBERS = (
    "observed_tokens",
    "score",
    "stderr",
    "relative",
    "score_low",
    "score_high",
    "relative_low",
    "relative_high",
    "answer_tokens",
)
"""Columns of `Results.to_pandas` that may be unknown numbers."""
MORE = ("suite", "options", "reason")
"""Its columns behind those of the CSV."""
IDENTITY = ("cell_id", "model", "label", "budget", "benchmark", "seed")
"""Columns of `Results.samples` that say which cell a row is of."""


class Results:
    """Measured cells: tables as `vtpbench report` prints them, and data frames. Made by `run` and `read`."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def __len__(self) -> int:
        """Count the cells."""
        return len(self._rows)

    def __repr__(self) -> str:
        counts = Counter(row["status"] for row in self._rows)
        return f"<vtpbench.Results {len(self)} cells: {', '.join(f'{n} {status}' for status, n in counts.items())}>"

    def _repr_markdown_(self) -> str:
        """Show the tables in a notebook."""
        return self.markdown()

    def to_pandas(self) -> pd.DataFrame:
        """Give one row a cell.

        Returns
        -------
        pandas.DataFrame : the columns of `vtpbench report --format csv` (docs/records.md), among them `model`, `label` (row of
            the table), `pruner`, `budget`, `benchmark`, `seed`, `status`, `score`, `relative` (per cent of vanilla's score in
            the same setting), `observed_tokens`, `n` and `cell_id`; behind them `suite`, `options` (a dict) and `reason` (why
            the status is not ok). A number that is not known is NaN, a text None

        """
        import pandas as pd

        frame: pd.DataFrame = pd.DataFrame(self._rows, columns=[*FIELDS, *MORE], dtype=object)
        typed: pd.DataFrame = frame.astype(dict.fromkeys(NUMBERS, "float64") | {"n": "int64", "seed": "int64"})
        return typed

    def samples(self, cells: Iterable[str] | None = None) -> pd.DataFrame:
        """Give one row a question: its answer, target, score and tokens.

        Parameters
        ----------
        cells : ids of cells, such as `frame[frame.pruner == "fastv"].cell_id`; None = all

        Returns
        -------
        pandas.DataFrame : `cell_id`, `model`, `label`, `budget`, `benchmark`, `seed`, then the columns of the per-sample table
            (docs/records.md); cells without such a table, because they failed, have no rows

        """
        import pandas as pd

        chosen = None if cells is None else set(cells)
        found = []
        for (record, _), row in zip(self._measured, self._rows, strict=True):
            table = self._sources.samples(record) if chosen is None or record.cell_id in chosen else None
            if table is not None:
                found.append(table.assign(**{name: row[name] for name in IDENTITY})[[*IDENTITY, *table.columns]])
        together: pd.DataFrame = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=list(IDENTITY))
        return together

    @cached_property
    def tables(self) -> tuple[Table, ...]:
        """The tables, with intervals and tests: one for each model and setting."""
        sources = self._sources
        return build(sources.records, sources.benchmarks, sources.pruners, sources.samples)

    def markdown(self) -> str:
        """Print the tables as Markdown."""
        return render(self.tables, "markdown")

    @cached_property
    def _measured(self) -> list[Any]:
        return measured(self.tables)

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        return [
            {**cell_facts(record, entry), "suite": record.suite, "options": record.pruner.options, "reason": record.reason}
            for record, entry in self._measured
        ]


def run(
    suite: str | Path,
    *,
    out: str | Path = "results",
    only: Mapping[str, Any] | Sequence[str] = (),
    settings: Mapping[str, Any] | Sequence[str] = (),
    limit: int | None = None,
    batch_size: int | str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    progress: bool = True,
) -> Results:
    """Measure what is missing of a suite, as `vtpbench run` does, and give all that it asks for.

    Parameters
    ----------
    suite : a YAML file, or the name of a suite that comes along, `"demo"`
    out : folder for results; each suite has its own inside
    only : cells to take, `{"pruner": "random", "budget": [16, 32]}` or `["pruner=random"]`, with their denominators; keys are
        model, pruner, budget, benchmark and seed
    settings : replaces what the suite says, `{"limit": 20, "matrix.budgets": [8]}` or `["limit=20"]`
    limit, batch_size, dtype : short for settings of these names
    device : as torch names it; by default the first GPU, else the CPU
    progress : whether to show on stderr how far it is

    Raises
    ------
    UserError : a mistake in the suite or the arguments, a model that cannot be opened, a folder that cannot be written. A cell
        that fails raises nothing: its `status` says so, and the next run tries it again

    """
    options = RunOptions(Path(out), _chosen(only), _set(settings), limit, batch_size, dtype)
    job = make_job(str(suite), options, _warn, Inspection(gpu_bytes=lambda: gpu_bytes(open_device(device))))
    execute(job, device, make_progress(console(sys.stderr)) if progress else Progress(console(io.StringIO())))
    return Results(of_cells(job.suite, job.store, job.cells))


def read(*sources: str | Path, results: str | Path = "results", mix: bool = False) -> Results:
    """Read what has been measured.

    Parameters
    ----------
    sources : folders of results, or suites by name or file, whose results lie in `results`; without any, all in `results`
    results : the folder that `run` wrote to
    mix : take records that cannot be compared, too; they are separate tables, and each has vanilla of its own setting

    Raises
    ------
    UserError : a name that is neither, no records, or, unless `mix`, records that cannot be compared

    """
    found = gather([str(source) for source in sources] or [str(results)], Path(results), _warn)
    if not mix:
        require_comparable(found.records)
    return Results(found)


def _chosen(only: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """Write what to take as the command line has it; a list means any of its values."""
    if not isinstance(only, Mapping):
        return [only] if isinstance(only, str) else list(only)
    lists = {key: value if isinstance(value, (list, tuple)) else [value] for key, value in only.items()}
    return [f"{key}={value}" for key, values in lists.items() for value in values]


def _set(settings: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """Write settings as the command line has them: values in YAML, of which JSON is a part."""
    if not isinstance(settings, Mapping):
        return [settings] if isinstance(settings, str) else list(settings)
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=3)
