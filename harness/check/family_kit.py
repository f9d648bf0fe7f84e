"""Judge a model family: every property on one model of it, a tiny random one or a checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import torch

from vtpbench.harness.check.family_properties import FAMILY_PROPERTIES, FamilyProperty
from vtpbench.harness.check.family_subject import FamilySubject
from vtpbench.harness.check.kit import PropertyResult, judge, one_thread
from vtpbench.harness.models.family import Family
from vtpbench.harness.models.load import Described, describe_model, open_model
from vtpbench.harness.models.registry import find, tiny_models


@dataclass(frozen=True)
class FamilyReport:
    """All that the kit found; `distribution` is whose the family is, or what was loaded."""

    model: str
    distribution: str
    results: tuple[PropertyResult, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed, and something passed."""
        found = {result.status for result in self.results}
        return "fail" not in found and "pass" in found


def check_family(model: str) -> FamilyReport:
    """Judge a family by its name, as `./file.py:Class`, or on a checkpoint: a folder or a hub id.

    Raises
    ------
    UserError : unknown name, a family that cannot be imported or has no tiny model, no checkpoint

    """
    distribution, builder = _builder(model)
    subject = FamilySubject(cache(builder))
    with one_thread():
        family = subject.family  # what goes wrong here is no property's fault
        results = tuple(_judge(prop, family, subject) for prop in FAMILY_PROPERTIES)
    return FamilyReport(model, distribution, results)


def _builder(model: str) -> tuple[str, Callable[..., Family]]:
    """Find what builds a model, and say whose it is."""
    if not model.partition(":")[0].endswith(".py") and ("/" in model or Path(model).is_dir()):
        described = describe_model(model, model, dtype="float32")
        return f"{described.info.family} of vtpbench", lambda **how: _opened(described, **how)
    entry = find(model)
    tiny = tiny_models()
    return entry.distribution, tiny[model] if model in tiny else entry.load().tiny


def _source_files(family: type[Family]) -> list[Path]:
    """Find where a family's classes are written."""
    return [Path(inspect.getfile(cls)) for cls in family.__mro__ if issubclass(cls, Family)]


def _opened(described: Described, *, attention: str, dtype: torch.dtype) -> Family:
    """Load a checkpoint on the CPU with an attention kernel and a number format."""
    format = str(dtype).removeprefix("torch.")
    info = described.info.model_copy(update={"attention": attention, "dtype": format})
    return open_model(replace(described, info=info), torch.device("cpu"))


def _judge(prop: FamilyProperty, family: Family, subject: FamilySubject) -> PropertyResult:
    return judge(prop.name, partial(prop.test, subject), family.shape.family, partial(_source_files, type(family)))
