"""Benchmarks that this machine knows, to score again what a record says it asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from vtpbench.harness.records.record import BenchmarkInfo, split_terms
from vtpbench.harness.suite.benchmarks import Benchmark, Profile, fingerprint, registry
from vtpbench.harness.suite.suite import load, packaged_suites
from vtpbench.harness.suite.task_data import is_here
from vtpbench.pruners.errors import UserError


class KnownBenchmarks:
    """Those that come with vtpbench, under each profile, and those of suites.

    Parameters
    ----------
    suites : files or names of suites whose benchmarks count, too; those that come along always do

    """

    def __init__(self, suites: Sequence[str]) -> None:
        asked = [each for name in (*packaged_suites(), *suites) for each in load(name).benchmarks.values()]
        listed = [each.under(profile) for each in registry().values() for profile in get_args(Profile)]
        self._all = list({each.model_dump_json(): each for each in (*asked, *listed)}.values())
        self._prints: dict[str, str | None] = {}

    def like(self, info: BenchmarkInfo) -> list[Benchmark]:
        """Find those of the same task and metric, whatever their data."""
        return [each for each in self._all if each.task == info.task and _fits(each, info)]

    def same(self, info: BenchmarkInfo) -> Benchmark | None:
        """Find the one whose task, code and data are the very ones that were asked; None where its data are not here."""
        return next((each for each in self.like(info) if self._print(each) == info.dataset), None)

    def _print(self, benchmark: Benchmark) -> str | None:
        """Fingerprint of a benchmark whose data are here, computed once."""
        name = benchmark.model_dump_json()
        if name not in self._prints:
            try:
                self._prints[name] = fingerprint(benchmark) if is_here(benchmark) else None
            except UserError:  # lmms-eval, or a file of the task, is not here
                self._prints[name] = None
        return self._prints[name]


def _fits(benchmark: Benchmark, info: BenchmarkInfo) -> bool:
    """Whether the metric is the same; a filter need not be named where its task has one only."""
    return benchmark.terms == info.terms and {each for _, each in split_terms(benchmark.metric)} <= {None, info.filter}
