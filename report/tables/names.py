"""Names of budgets, blocks and rows, and numbers that stand for colours and shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vtpbench.harness.records.record import PrunerInfo, Record
from vtpbench.report.tables.rounding import half_up, paper
from vtpbench.report.tables.settings import groups, identity, is_vanilla

RANDOM = "random"
"""Pruner that every other has to beat."""


def row_labels(records: Iterable[Record]) -> dict[str, str]:
    """Label of each pruner; where one label stands for several pruners, with what tells them apart."""
    by_label = groups(records, lambda r: r.pruner.label)
    named: dict[str, str] = {}
    for label, same in by_label.items():
        infos = {identity(r.pruner): r.pruner for r in same}
        facts = {key: _pruner_facts(info) for key, info in infos.items()}
        for key, own in facts.items():
            differing = [text for name, text in own.items() if any(other.get(name) != text for other in facts.values())]
            named[key] = f"{label} ({', '.join(differing)})" if differing else label
    return named


def _pruner_facts(info: PrunerInfo) -> dict[str, str]:
    options = {f"option {name}": f"{name}={value}" for name, value in sorted(info.options.items())}
    files = {} if info.fingerprint is None else {"fingerprint": f"files {info.fingerprint[:8]}"}
    code, origin = f"code {info.code[:8]}", f"from {info.distribution}"
    return {"name": info.name, **options, "code": code, **files, "distribution": origin}


def styles(pruners: Iterable[tuple[str, str]], taken: Mapping[str, int] | None = None) -> dict[str, int]:
    """Give each label a number, for its colour and shape: random gets 0, the others count from 1 as they appear.

    Parameters
    ----------
    pruners : label and name of each
    taken : numbers that labels have already; negative ones are none of ours

    """
    numbers = dict(taken or {})
    for label, name in pruners:
        if label not in numbers:
            is_floor = name == RANDOM and 0 not in numbers.values()
            numbers[label] = 0 if is_floor else max([0, *numbers.values()]) + 1
    return numbers


def block_title(record: Record, observed: float | None, original: float | None) -> str:
    """Say what the rows of a record's block are to keep; `observed` and `original` are mean tokens, where known."""
    budget = record.budget
    if is_vanilla(record):
        if original is None:
            return "All tokens"
        fixed = record.model.vision_tokens is not None
        return f"All {_count(original)} tokens" if fixed else f"All tokens ({_count(original)} on average)"
    if budget.tokens is not None:
        share = "" if not original else f" ({paper(100 * budget.tokens / original)} %)"
        return f"Retain {budget.tokens} tokens{share}"
    asked = observed if original is None or budget.ratio is None else budget.ratio * original  # rows may keep fewer
    mean = "" if asked is None else f" ({_count(asked)} tokens on average)"
    return f"Retain {budget.label.removesuffix('%')} %{mean}"


def _count(tokens: float) -> str:
    return str(half_up(tokens, 1)).removesuffix(".0")
