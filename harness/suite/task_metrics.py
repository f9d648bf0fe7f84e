"""Which of a task's numbers is the score: its metric, the filter that answers go through first, and which way is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vtpbench.harness.records.record import NO_FILTER, split_terms
from vtpbench.pruners.errors import UserError, did_you_mean

DEFAULT_METRIC = "exact_match"
"""What lmms-eval computes for a task that names no metric and is answered by text."""
FUNCTION = "!function "
"""Before the name of a function in a task that was read without running its code."""
LOWER_BY_DEFAULT = frozenset({"perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "brier_score"})
"""lmms-eval's own metrics of which less is better; a task need not say so."""


@dataclass(frozen=True)
class ScoreChoice:
    """A score, as a record states it."""

    metric: str
    """`metric`, `metric,filter` where the task has filters, or a sum of these."""
    higher_is_better: bool


def metric_entries(definition: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Entries of a task's `metric_list` by name."""
    entries = definition.get("metric_list")
    return {_name(entry["metric"]): entry for entry in ([{"metric": DEFAULT_METRIC}] if entries is None else entries)}


def own_aggregations(definition: Mapping[str, Any]) -> frozenset[str]:
    """Metrics whose numbers the task's own code computes from the samples'; the rest lmms-eval does, most as a mean."""
    entries = {} if "class" in definition else metric_entries(definition)
    return frozenset(name for name, entry in entries.items() if str(entry.get("aggregation")).startswith(FUNCTION))


def is_mean(definition: Mapping[str, Any], metric: str) -> bool:
    """Whether a task declares a metric to be the mean of what it gives for the samples."""
    return bool(metric_entries(definition)[metric].get("aggregation", "") == "mean")


def _name(metric: Any) -> str:
    """Name a metric; one that is a function is called like it."""
    if callable(metric):
        return str(getattr(metric, "__name__", metric))
    text = str(metric)
    return text.rpartition(".")[2] if text.startswith(FUNCTION) else text


def choose_score(definition: Mapping[str, Any], metric: str, name: str) -> ScoreChoice:
    """Find the metric that a benchmark names among a task's; `name` says in messages which benchmark it is.

    Raises
    ------
    UserError : no such metric or filter, several filters and none is named, or a sum that makes no sense

    """
    known, named = metric_entries(definition), split_terms(metric)
    for term, _ in named:
        if term not in known:
            raise UserError(f"{name} has no metric '{term}'; {did_you_mean(term, known)}")
    chosen = _filter(definition, metric, name)
    lower = {term: _lower(term, known[term]) for term, _ in named}
    if len(set(lower.values())) > 1:
        worse = ", ".join(term for term, less in lower.items() if less)
        raise UserError(f"{name}: less is better of {worse}, more of the rest; they cannot be summed, name one of them")
    terms = (term if chosen == NO_FILTER else f"{term},{chosen}" for term, _ in named)
    return ScoreChoice(" + ".join(terms), not any(lower.values()))


def _filter(definition: Mapping[str, Any], metric: str, name: str) -> str:
    """Name the filter whose numbers count: the one that the benchmark names, else the only one of the task."""
    filters = [str(entry["name"]) for entry in definition.get("filter_list") or ()] or [NO_FILTER]
    wanted = {each for _, each in split_terms(metric) if each is not None}
    for each in wanted:
        if each not in filters:
            raise UserError(f"{name} has no filter '{each}' (metric: {metric}); {did_you_mean(each, filters)}")
    if len(wanted) > 1:
        raise UserError(f"{name}: the terms of a sum come from one filter, not from {' and '.join(sorted(wanted))}")
    if not wanted and len(set(filters)) > 1:
        term = split_terms(metric)[0][0]
        choices = " or ".join(f"{term},{each}" for each in dict.fromkeys(filters))
        raise UserError(f"{name} scores answers behind several filters; say which: metric: {choices}")
    return next(iter(wanted), filters[0])


def _lower(term: str, entry: Mapping[str, Any]) -> bool:
    """Whether less of a metric is better, by the task's word, else by lmms-eval's."""
    said = entry.get("higher_is_better")
    return term in LOWER_BY_DEFAULT if said is None else str(said).lower() in ("false", "0", "no")
