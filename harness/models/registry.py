"""Names of model families: built-ins from the tables below, strangers by entry point, local files by path; all loaded lazily."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from vtpbench.harness.models.answer_rule import READS_NO_STOPS, AnswerRule
from vtpbench.pruners.errors import UserError, did_you_mean, one_line
from vtpbench.pruners.registry import class_files, import_source, installed

if TYPE_CHECKING:
    from vtpbench.harness.models.family import Family

GROUP = "vtpbench.families"
TRANSFORMERS = {
    "llava": "vtpbench.harness.models.llava:Llava",
    "llava_next": "vtpbench.harness.models.llava_next:LlavaNext",
    "llava_onevision": "vtpbench.harness.models.llava_onevision:LlavaOnevision",
    "qwen2_vl": "vtpbench.harness.models.qwen2_vl:Qwen2VL",
    "qwen2_5_vl": "vtpbench.harness.models.qwen2_5_vl:Qwen25VL",
    "qwen3_vl": "vtpbench.harness.models.qwen3_vl:Qwen3VL",
    "internvl": "vtpbench.harness.models.internvl:InternVL",
}
"""Built-in families by the `model_type` of a configuration of transformers."""
ORIGINAL = {
    "original_llava": "vtpbench.harness.models.original:OriginalLlava",
    "original_llava_next": "vtpbench.harness.models.original:OriginalLlavaNext",
}
"""Layouts of checkpoints that transformers has no name for."""


@dataclass(frozen=True)
class FamilyEntry:
    """Where a family's class is: `target` is `module:Class`, or `path/to/file.py:Class`."""

    name: str
    target: str
    distribution: str

    def load(self) -> type[Family]:
        """Import the class; raises `UserError`, which names the distribution, for one that cannot be used."""
        from vtpbench.harness.models.family import Family

        module, _, attribute = self.target.partition(":")
        try:
            found = getattr(import_source(module, "family"), attribute, None)
        except (UserError, KeyboardInterrupt):
            raise
        except BaseException as e:  # a stranger's module may fail in any way, or exit; the message must say whose it is
            raise UserError(f"model family '{self.name}' of {self.distribution} cannot be imported: {one_line(e)}") from e
        if not (inspect.isclass(found) and issubclass(found, Family)):
            reason = f"{attribute or 'the target'} is no class that derives from vtpbench.harness.models.family.Family"
            raise UserError(f"model family '{self.name}' of {self.distribution}: {reason}")
        if missing := sorted(found.__abstractmethods__):
            raise UserError(f"model family '{self.name}' of {self.distribution}: {attribute} lacks {', '.join(missing)}")
        return found

    def code(self) -> str | None:
        """Hash of a stranger's source files, which decide numbers as ours do; None for our own, which `versions` names."""
        from vtpbench.harness.models.family import Family

        if self.distribution == "vtpbench":
            return None
        foreign = [c for c in self.load().__mro__ if issubclass(c, Family) and not c.__module__.startswith("vtpbench.")]
        files = dict.fromkeys(file for cls in foreign for file in class_files(cls))
        return sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]


def entries() -> dict[str, FamilyEntry]:
    """All families by name; a name that is given twice is an error that names both distributions."""
    found = {name: FamilyEntry(name, target, "vtpbench") for name, target in {**TRANSFORMERS, **ORIGINAL}.items()}
    for name, target, distribution in installed(GROUP):
        if name in found:
            first = found[name].distribution
            raise UserError(f"model family '{name}' is provided by both {first} and {distribution}; uninstall one of them")
        found[name] = FamilyEntry(name, target, distribution)
    return found


def find(name: str) -> FamilyEntry:
    """Look a family up; `./file.py:Class` runs the code of that file."""
    if ".py:" in name:
        return FamilyEntry(name, name, f"file {name.partition(':')[0]}")
    if name.endswith(".py"):
        raise UserError(f"model family '{name}' names a file; add its class: {name}:Class")
    known = entries()
    if name not in known:
        raise UserError(f"unknown model family '{name}'; {did_you_mean(name, known)}")
    return known[name]


def stock_families() -> list[type[Family]]:
    """Families whose models are classes of transformers, the built-ins first."""
    return [entry.load() for name, entry in entries().items() if name not in ORIGINAL]


def tiny_models() -> dict[str, Callable[..., Family]]:
    """Builders of a tiny random model of every family, by the family's name."""
    from vtpbench.harness.models.tiny import TINY

    strangers = {name: entry for name, entry in entries().items() if name not in {**TRANSFORMERS, **ORIGINAL}}
    return {**TINY, **{name: entry.load().tiny for name, entry in strangers.items()}}


def answer_rule(family: str) -> AnswerRule:
    """How lmms-eval's adapter of a family reads a task; for a family of which nothing is known, that of LLaVA's."""
    known = entries()
    return known[family].load().answers if family in known else READS_NO_STOPS
