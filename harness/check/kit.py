"""Judge a pruner: every property on a tiny random model of every family."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from vtpbench.harness.check.properties import PROPERTIES, Status, Verdict
from vtpbench.harness.check.subject import ModelBuilder, PrunerOnModel
from vtpbench.harness.host.plugin_errors import plugin_errors
from vtpbench.harness.models.registry import tiny_models
from vtpbench.pruners.errors import Impossible, UserError, did_you_mean, failing_line, one_line
from vtpbench.pruners.registry import build, find, source_files


@dataclass(frozen=True)
class PropertyResult:
    """A property of the pruner on one family; anything but a pass has a reason, an exception in the pruner's code its line."""

    family: str
    property: str
    status: Status
    reason: str = ""
    line: str = ""


@dataclass(frozen=True)
class CheckReport:
    """All that the kit found."""

    pruner: str
    options: Mapping[str, Any]
    distribution: str
    results: tuple[PropertyResult, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed, and something passed."""
        found = {result.status for result in self.results}
        return "fail" not in found and "pass" in found


def check(
    name: str,
    options: Mapping[str, Any] | None = None,
    families: Collection[str] | None = None,
    builders: Mapping[str, ModelBuilder] | None = None,
) -> CheckReport:
    """Judge a pruner by registered name, or `./file.py:Class`, on some families or on all; `builders` are tiny models of them.

    Raises
    ------
    UserError : unknown name, option or family; a pruner that cannot be imported

    """
    builders = tiny_models() if builders is None else builders
    for family in families or ():
        if family not in builders:
            raise UserError(f"unknown model family '{family}'; {did_you_mean(family, builders)}")
    entry, chosen = find(name), options or {}
    with plugin_errors(name):
        pruner = build(name, chosen)
    results = []
    with one_thread():
        for family, builder in builders.items():
            if families is None or family in families:
                subject = PrunerOnModel(pruner, cache(builder))
                files = partial(source_files, type(pruner))
                results += [judge(prop.name, partial(prop.test, subject), family, files) for prop in PROPERTIES]
    return CheckReport(name, dict(chosen), entry.distribution, tuple(results))


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep threads from waiting for each other over tensors that are too small to share."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def judge(name: str, test: Callable[[], Verdict], family: str, files: Callable[[], Sequence[Path]]) -> PropertyResult:
    """Test a property; of what a stranger's code raises, the line in one of its own `files` is told."""
    try:
        verdict = test()
    except Impossible as e:
        verdict = Verdict(e.status, str(e))
    except UserError as e:
        verdict = Verdict("fail", str(e))
    except KeyboardInterrupt:
        raise
    except BaseException as e:  # it may fail in any way, or exit; each failure is a line of the report
        return PropertyResult(family, name, "fail", one_line(e), failing_line(e, files()).removeprefix(", at "))
    return PropertyResult(family, name, verdict.status, verdict.reason)
