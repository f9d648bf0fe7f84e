"""Settings: which records may stand in one table. What cannot be compared is separated here, and the headings say why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from vtpbench.harness.records.record import CODE, PYTHON, VTPBENCH, BenchmarkInfo, Record, agree
from vtpbench.pruners.errors import UserError

Key = TypeVar("Key")


@dataclass(frozen=True)
class Setting:
    """Records of one suite, model, set of versions, batch size and device, in which a benchmark's label means one thing."""

    title: str
    records: tuple[Record, ...]


def split(records: Iterable[Record]) -> tuple[Setting, ...]:
    """Sort records into settings, in an order that does not depend on theirs: by suite and model, newest and largest first.

    Raises
    ------
    UserError
        Two records of one cell give different scores.

    """
    parts = [
        part
        for same in groups(sorted(unique(records), key=newest, reverse=True), _comparable).values()
        for batch in _by_run(same, _batch_size)
        for prefix in _by_run(batch, _share_prefix)
        for graphs in _by_run(prefix, _graphs)
        for device in _by_run(graphs, _device)
        for limited in _by_limit(device)
        for part in _by_meaning(limited)
    ]
    parts.sort(key=lambda part: (part[0].suite, part[0].model.label))
    return tuple(Setting(_title(part, _siblings(part, parts)), tuple(part)) for part in parts)


def require_comparable(records: Iterable[Record]) -> None:
    """Refuse records of one model that no single table can hold.

    Records of other suites, labels or weights are other tables by design, and so are other limits: a trial run, then the
    full one. Anything else that separates two records of one model of a suite has probably happened unnoticed.

    Raises
    ------
    UserError
        Model settings, versions, batch size, device, or what a benchmark's label means, differ; the message names the values.

    """
    complaints = []
    for (suite, label, *_), same in groups(unique(records), _weighed).items():
        words = [f"{name} {_counted(values)}" for name, values in sorted(_values(same).items()) if len(values) > 1]
        if words:
            complaints.append(f"model '{label}' of suite '{suite}' was run in settings that do not compare: {'; '.join(words)}")
    if complaints:
        raise UserError(
            f"{'. '.join(sorted(complaints))}. Remove the records that are out of date, report on the folders one by one, "
            "or see every setting as a table of its own with --mix"
        )


def unique(records: Iterable[Record]) -> list[Record]:
    """Drop copies of a cell that came from several folders; a result is preferred to a failure.

    Raises
    ------
    UserError
        Two results of one cell differ.

    """
    chosen: dict[tuple[str, str], Record] = {}
    for record in sorted(records, key=newest):
        known = chosen.get((record.suite, record.cell_id))
        if known is not None and known.score is not None and record.score is not None and not agree(known.score, record.score):
            raise UserError(
                f"cell {record.cell_id} of suite '{record.suite}' has two results, {known.score:.10g} and {record.score:.10g}; "
                "report on the folders one by one, or remove one of the two record files"
            )
        if known is None or known.status != "ok" or record.status == "ok":
            chosen[record.suite, record.cell_id] = record
    return list(chosen.values())


def identity(info: BaseModel, *, without: str = "") -> str:
    """Text that is equal for equal content; `without` names a field that does not count."""
    return _text(info.model_dump(mode="json", exclude={without}))


def is_vanilla(record: Record) -> bool:
    """Whether a record is a denominator."""
    return record.pruner.name == "vanilla"


def groups(records: Iterable[Record], key: Callable[[Record], Key]) -> dict[Key, list[Record]]:
    """Group records by key, groups in order of appearance."""
    found: dict[Key, list[Record]] = {}
    for record in records:
        found.setdefault(key(record), []).append(record)
    return found


def newest(record: Record) -> tuple[str, str, str]:
    """Sort key by time; total, so that nothing depends on the order in which files are read."""
    return record.created, record.cell_id, identity(record)


def _comparable(record: Record) -> tuple[str, str, str]:
    return record.suite, identity(record.model, without="id"), _text(_versions(record))  # one model may lie in two places


def _weighed(record: Record) -> tuple[str, str, str, str | None]:
    return record.suite, record.model.label, record.model.weights, record.model.tower


def _values(records: Sequence[Record]) -> dict[str, Counter[str]]:
    """Values of every fact that must be equal within a table, with the number of cells of each."""
    found: dict[str, Counter[str]] = {}
    unknown = dict.fromkeys((name for record in records for name in _versions(record)), "unknown")
    for record in records:
        versions = {"code of vtpbench" if name == CODE else name: v for name, v in (unknown | _versions(record)).items()}
        facts = record.model.model_dump(mode="json", exclude={"label", "id", "weights", "tower"}) | versions
        run = {
            "batch size": _batch_size(record),
            "share_prefix": _share_prefix(record),
            "graphs": _graphs(record),
            "device": _device(record),
        }
        facts |= {name: value for name, value in run.items() if value is not None}
        benchmark = record.benchmark.model_dump(mode="json", exclude={"label", "limit", "draw", "on_bad_question"})
        facts |= {f"{name} of {record.benchmark.label}": value for name, value in benchmark.items()}
        for name, value in facts.items():
            found.setdefault(name, Counter())[value if isinstance(value, str) else _text(value)] += 1
    return found


def _counted(values: Counter[str]) -> str:
    """Name each value with its cells, the most frequent first."""
    ordered = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    return " and ".join(f"{value} ({n} cell{'s' * (n != 1)})" for value, n in ordered)


def _versions(record: Record) -> dict[str, str]:
    """Versions that change numbers: those that are a part of a cell's identity."""
    return {name: version for name, version in record.environment.versions.items() if name not in (VTPBENCH, PYTHON)}


def _by_run(records: list[Record], fact: Callable[[Record], Any]) -> list[list[Record]]:
    """One part for each value of a fact of the run, the largest first; a record of a cell that never ran belongs to each."""
    values = sorted({value for r in records if (value := fact(r)) is not None}, reverse=True)
    return [[r for r in records if fact(r) in (None, value)] for value in values] or [records]


def _batch_size(record: Record) -> int | None:
    """Batch size that was requested; None where no batch was reached."""
    return record.batch.requested if record.batch else None


def _share_prefix(record: Record) -> bool | None:
    """Whether questions about a picture shared a prefill; None where no batch was reached."""
    return record.batch.share_prefix if record.batch else None


def _graphs(record: Record) -> bool | None:
    """Whether decoding steps kept their addresses; None where no batch was reached."""
    return record.batch.graphs if record.batch else None


def _device(record: Record) -> str | None:
    """Kind of device that the answers are from; None where there are none."""
    return record.environment.device_kind if record.batch else None


def _by_limit(records: list[Record]) -> list[list[Record]]:
    """One part per limit and draw where a benchmark was run with several (a trial run, then the full one), largest first."""
    meanings = {(r.benchmark.label, r.benchmark.limit, r.benchmark.draw) for r in records}
    if len(meanings) == len({label for label, *_ in meanings}):
        return [records]  # a suite may well give each benchmark a limit of its own
    by_limit = groups(records, lambda r: (r.benchmark.limit, r.benchmark.draw)).values()
    return sorted(by_limit, key=lambda part: part[0].benchmark.limit or float("inf"), reverse=True)


def _by_meaning(records: list[Record]) -> list[list[Record]]:
    """Part k holds the k-th newest meaning (task, dataset, generation ...) of every benchmark label."""
    parts: list[list[Record]] = []
    for column in groups(records, lambda r: r.benchmark.label).values():
        for k, meaning in enumerate(groups(column, lambda r: identity(r.benchmark)).values()):
            if k == len(parts):
                parts.append([])
            parts[k].extend(meaning)
    return parts


def _siblings(part: list[Record], parts: list[list[Record]]) -> list[list[Record]]:
    name = (part[0].suite, part[0].model.label)
    return [other for other in parts if (other[0].suite, other[0].model.label) == name]


def _title(part: list[Record], siblings: list[list[Record]]) -> str:
    """Name model and suite, and whatever tells this table from the others of the same model and suite."""
    facts, others = _facts(part), [_facts(other) for other in siblings]
    differing = {key: text for key, text in facts.items() if any(other.get(key, text) != text for other in others)}
    if not {("", "weights"), ("", "tower")} & differing.keys():
        differing.pop(("", "id"), None)  # the same files in another place
    owners: dict[str, list[str]] = {}
    for (owner, _), text in differing.items():
        owners.setdefault(text, []).append(owner)
    labels = {r.benchmark.label for r in part}
    words = [text if set(who) in ({""}, labels) else f"{', '.join(sorted(who))}: {text}" for text, who in owners.items()]
    return " · ".join([part[0].model.label, f"suite {part[0].suite}", *words])


def _facts(part: list[Record]) -> dict[tuple[str, str], str]:
    """Everything that may tell two tables apart, by benchmark (`""` = the whole table) and name."""
    first = part[0]
    model = first.model.model_dump(mode="json", exclude={"label"})
    facts = {("", name): f"{name} {value}" for name, value in [*model.items(), *sorted(_versions(first).items())]}
    facts["", "batch"] = f"batch size {next((r.batch.requested for r in part if r.batch), 'unknown')}"
    facts["", "device"] = f"on {next((device for r in part if (device := _device(r))), 'an unknown device')}"
    for benchmark in sorted((r.benchmark for r in part), key=lambda b: b.label):
        facts.update({(benchmark.label, name): text for name, text in _benchmark_facts(benchmark).items()})
    return facts


def _benchmark_facts(benchmark: BenchmarkInfo) -> dict[str, str]:
    drawn = "" if benchmark.draw is None else f" drawn by seed {benchmark.draw.seed}"
    limit = "no limit" if benchmark.limit is None else f"limit {benchmark.limit}{drawn}"
    fields = {"profile": "none", "on_bad_question": "fail"} | benchmark.model_dump(
        mode="json", exclude={"label", "limit", "draw"}
    )
    return {"limit": limit} | {name: f"{name} {v if isinstance(v, str) else _text(v)}" for name, v in fields.items()}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
