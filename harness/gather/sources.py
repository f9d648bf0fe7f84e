"""Records and per-sample tables for a report, and efficiency records: from suites by name, or from folders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vtpbench.harness.gather.suite_records import named, relabelled
from vtpbench.harness.records.cell import Cell
from vtpbench.harness.records.efficiency import PLACE, SUFFIX, EfficiencyRecord, find_efficiency
from vtpbench.harness.records.folders import stores
from vtpbench.harness.records.record import DUMMY, Record
from vtpbench.harness.records.store import Store
from vtpbench.harness.suite.suite import Suite, load
from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Sources:
    """Records, and the order of columns and rows (labels) where a suite gives one."""

    records: list[Record]
    benchmarks: list[str]
    pruners: list[str]
    samples: Callable[[Record], pd.DataFrame | None]
    """Per-sample table of a record, read anew at each call; None where it has none."""
    pictures: Callable[[str], bytes | None]
    """Picture that a per-sample table names, as JPEG; None where there is none."""
    folder: Callable[[Record], Path]
    """Results of a suite that a record lies in; of several the first."""


def split(names: Sequence[str], results: Path, warn: Callable[[str], None]) -> tuple[list[str], list[EfficiencyRecord]]:
    """Read the efficiency records that sources hold, and say which sources are left to `gather` answers from.

    A source is a suite, a folder of results, or an efficiency record's file; all but those with efficiency records alone
    are left. Raises `UserError` for a name that is neither a path nor a suite.
    """
    left: list[str] = []
    speed: dict[str, EfficiencyRecord] = {}
    for name in names:
        path = Path(name)
        suite = None if path.is_dir() or name.endswith(SUFFIX) or path == results else load(name).name
        place = results / PLACE if path == results else path  # what is published is beside one's own, and not meant by it
        found = find_efficiency(place if suite is None else results / PLACE / suite, warn)
        speed.update((record.id, record) for record in found)
        if not found or stores(path if suite is None else results / suite):
            left.append(name)
    return left, list(speed.values())


def gather(names: Sequence[str], results: Path, warn: Callable[[str], None]) -> Sources:
    """Read the records that `names` stand for: folders of results, or suites, whose folder lies in `results`.

    Of a suite's folder those that it asks for as it stands, under its labels; the others are counted in a warning.
    Those of models with random weights are skipped with a warning: however they came about, no table may hold them.

    Raises
    ------
    UserError : a name that is neither, or no record at all

    """
    folders: dict[Path, Suite | None] = {}
    suites: list[Suite] = []
    for name in names:
        if Path(name).is_dir():
            folders.update(dict.fromkeys(stores(Path(name))))
        elif Path(name) != results:
            suites.append(load(name))
            folders.setdefault(results / suites[-1].name, suites[-1])
    stores_by_cell: dict[tuple[str, str], list[Store]] = {}
    found = [Store(folder, warn) for folder in folders]
    held = [(record, store) for store in found for record in _asked(store, folders[store.folder], warn)]
    records = [record for record, _ in held if record.model.weights != DUMMY]
    for record, store in held:
        stores_by_cell.setdefault((record.suite, record.cell_id), []).append(store)
    if skipped := len(held) - len(records):
        warn(f"records of models with random weights are skipped, {skipped} in number: their scores mean nothing")
    if not records:
        asked = next((name for name in names if not Path(name).is_dir() and Path(name) != results), "demo")
        places = ", ".join(map(str, folders or names))
        raise UserError(f"no records in {places}; name a folder of results, or measure something first: vtpbench run {asked}")

    def folder(record: Record) -> Path:
        return stores_by_cell[record.suite, record.cell_id][0].folder

    def samples(record: Record) -> pd.DataFrame | None:
        holders = stores_by_cell.get((record.suite, record.cell_id), [])
        tables = (store.samples(record.cell_id) for store in holders)
        return next((table for table in tables if table is not None), None)

    def pictures(name: str) -> bytes | None:
        return next((jpeg for store in found if (jpeg := store.picture(name)) is not None), None)

    return Sources(records, *_label_order(suites), samples, pictures, folder)


def of_cells(suite: Suite, store: Store, cells: Iterable[Cell]) -> Sources:
    """Read the records of cells that a suite has just asked for, under the labels that it gives them."""
    found = []
    for cell in cells:
        if (record := store.read(cell.id)) is not None:
            labels = {"model": cell.model.label, "pruner": cell.pruner.label, "benchmark": cell.benchmark.label}
            found.append(relabelled(record, labels))
    order = _label_order([suite])
    return Sources(found, *order, lambda record: store.samples(record.cell_id), store.picture, lambda record: store.folder)


def _label_order(suites: Iterable[Suite]) -> tuple[list[str], list[str]]:
    """List the labels of benchmarks, and of pruners, in the order in which suites name them."""
    matrices = [matrix for suite in suites for matrix in suite.matrix]
    benchmarks = _unique(benchmark.label for matrix in matrices for benchmark in matrix.benchmarks)
    return benchmarks, _unique(pruner.label for matrix in matrices for pruner in matrix.pruners)


def _asked(store: Store, suite: Suite | None, warn: Callable[[str], None]) -> list[Record]:
    """Read the records of a folder, where a suite was named those that it asks for."""
    records = store.records()
    if suite is None:
        return records
    asked = named(suite, records)
    if others := len(records) - len(asked):
        whole = f"`vtpbench report {store.folder}` shows all"
        kinds = "rows, benchmarks, budgets, limits or seeds"
        warn(f"{others} of {len(records)} records are of {kinds} that the suite does not name now; {whole}")
    return asked


def _unique(labels: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(labels))
