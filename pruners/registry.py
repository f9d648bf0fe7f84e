"""Names of pruners: built-ins from the table below, strangers by entry point, local files by path; all loaded lazily."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from vtpbench.pruners.errors import BadOption, UserError, did_you_mean, failing_line, one_line

if TYPE_CHECKING:
    from vtpbench.pruners.base import Pruner

GROUP = "vtpbench.pruners"
SHARED = tuple(
    f"{name}.py"
    for name in (
        "base",
        "budget",
        "cells",
        "evidence",
        "geometry",
        "pictures",
        "quotas",
        "random",
        "ranking",
        "tiles",
        "transfer",
    )
)
"""Modules whose change can change what a built-in pruner keeps."""
CHOOSING = ("score", "selection_order", "select", "reduce", "apply_order", "apply")
"""Methods of which a pruner defines one."""
BUILT_IN = {
    "vanilla": "vtpbench.pruners.vanilla:Vanilla",
    "random": "vtpbench.pruners.random:Random",
    "oc-vtp": "vtpbench.pruners.oc_vtp:OCVTP",
    "fastv": "vtpbench.pruners.fastv:FastV",
    "sparsevlm": "vtpbench.pruners.sparsevlm:SparseVLM",
    "visionzip": "vtpbench.pruners.visionzip:VisionZip",
    "pyramiddrop": "vtpbench.pruners.pyramiddrop:PyramidDrop",
    "hiprune": "vtpbench.pruners.hiprune:HiPrune",
    "dart": "vtpbench.pruners.dart:DART",
    "fastervlm": "vtpbench.pruners.fastervlm:FasterVLM",
    "vispruner": "vtpbench.pruners.vispruner:VisPruner",
    "prumerge": "vtpbench.pruners.prumerge:PruMerge",
    "prumerge-plus": "vtpbench.pruners.prumerge_plus:PruMergePlus",
    "divprune": "vtpbench.pruners.divprune:DivPrune",
    "cdpruner": "vtpbench.pruners.cdpruner:CDPruner",
    "trim": "vtpbench.pruners.trim:TRIM",
    "tome": "vtpbench.pruners.tome:ToMe",
    "holov": "vtpbench.pruners.holov:HoloV",
    "vscan": "vtpbench.pruners.vscan:VScan",
    "hired": "vtpbench.pruners.hired:HiRED",
    "sequence": "vtpbench.pruners.in_sequence:Sequence",
    "grid": "vtpbench.pruners.grid:UniformGrid",
    "pool": "vtpbench.pruners.pool:Pool",
    "downsample": "vtpbench.pruners.downsample:Downsample",
    "text-only": "vtpbench.pruners.text_only:TextOnly",
}


@dataclass(frozen=True)
class PrunerEntry:
    """Where a pruner's class is: `target` is `module:Class`, or `path/to/file.py:Class`."""

    name: str
    target: str
    distribution: str

    def load(self) -> type[Pruner]:
        """Import the class; a failing import names the distribution."""
        module, _, attribute = self.target.partition(":")
        try:
            imported = import_source(module, "pruner")
            found = getattr(imported, attribute, None)
        except UserError:
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as e:  # a stranger's module may fail in any way, or exit; the message must say whose it is
            where = failing_line(e, [Path(module)]) if module.endswith(".py") else ""
            raise UserError(f"pruner '{self.name}' of {self.distribution} cannot be imported: {one_line(e)}{where}") from e
        if reason := self._unfit(found, attribute, imported):
            raise UserError(f"pruner '{self.name}' of {self.distribution}: {reason}")
        assert isinstance(found, type)
        return found

    @staticmethod
    def _unfit(found: object, name: str, module: Any) -> str:
        """Say why something that was imported is no pruner; empty where it is one."""
        from vtpbench.pruners.base import Pruner

        if found is None:
            classes = {key: value for key, value in vars(module).items() if inspect.isclass(value)}
            mine = [key for key, value in classes.items() if value.__module__ == module.__name__]
            return f"there is no class {name}; {did_you_mean(name, mine)}"
        if not (inspect.isclass(found) and issubclass(found, Pruner)):
            return f"{name} does not derive from vtpbench.pruners.base.Pruner"
        if "__dataclass_fields__" not in vars(found):
            return f"write @dataclass(frozen=True) above class {name}"
        own = {part for part in (*CHOOSING, "cuts") if getattr(found, part) is not getattr(Pruner, part)}
        if not own:
            return f"{name} chooses nothing; define score(self, view)"
        if found.nested and (unasked := own & {"select", "reduce", "apply"}):
            return f"{name} says `nested`, so that its {min(unasked)} is not asked; define score or selection_order, or say False"
        return ""

    def code(self) -> str:
        """Hash of the source that decides the pruner's numbers.

        That is the folder of the class's module where it is part of a package, else its file; the same for the pruners that
        it is derived from; and for built-ins, whose package holds all of them, the module or sub-package and what they share.
        """
        own = source_files(self.load())
        shared = [Path(__file__).with_name(name) for name in SHARED] if self.distribution == "vtpbench" else []
        return sha256(b"\0".join(file.read_bytes() for file in dict.fromkeys([*own, *shared]))).hexdigest()[:16]


def entries() -> dict[str, PrunerEntry]:
    """All pruners by name; a name that is given twice is an error that names both distributions."""
    found = {name: PrunerEntry(name, target, "vtpbench") for name, target in BUILT_IN.items()}
    for name, target, distribution in installed(GROUP):
        if name in found:
            first = found[name].distribution
            raise UserError(f"pruner '{name}' is provided by both {first} and {distribution}; uninstall one of them")
        found[name] = PrunerEntry(name, target, distribution)
    return found


def installed(group: str) -> tuple[tuple[str, str, str], ...]:
    """Name, target and distribution of a group's entry points on Python's path."""
    return _read(group, tuple(sys.path))


@lru_cache(maxsize=8)
def _read(group: str, path: tuple[str, ...]) -> tuple[tuple[str, str, str], ...]:
    """Read them once for a path: that takes a twentieth of a second."""
    del path  # where `entry_points` looks
    points = entry_points(group=group)
    return tuple((point.name, point.value, point.dist.name if point.dist else "unknown") for point in points)


def find(name: str) -> PrunerEntry:
    """Look a name up; `./file.py:Class` runs the code of that file."""
    if ".py:" in name:
        return PrunerEntry(name, name, f"file {name.partition(':')[0]}")
    if name.endswith(".py"):
        raise UserError(f"pruner '{name}' names a file; add its class: {name}:Class")
    known = entries()
    if name not in known:
        raise UserError(f"unknown pruner '{name}'; {did_you_mean(name, known)}")
    return known[name]


def build(name: str, options: Mapping[str, Any]) -> Pruner:
    """Make a pruner with options; an unknown or unusable option is an error that names the valid ones."""
    cls = find(name).load()
    fields = {f.name for f in dataclasses.fields(cls) if f.init}
    for option in options:
        if option not in fields:
            raise BadOption(option, f"pruner '{name}' has no option '{option}'; {did_you_mean(option, fields)}")
    try:
        return cls(**_typed(name, cls, options))
    except (TypeError, ValueError) as e:
        raise UserError(f"pruner '{name}': {e}") from e
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as e:  # a stranger's may fail in any way, or exit
        raise UserError(f"pruner '{name}' cannot be made: {one_line(e)}{failing_line(e, source_files(cls))}") from e


def _typed(name: str, cls: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Check option values against the annotations of a pruner's fields, as strictly as JSON: a list may fill a tuple."""
    from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

    try:
        hints = get_type_hints(cls)
    except (NameError, TypeError):  # a stranger's may name what only type checkers import, or, in Python 3.10, a bare ClassVar
        return dict(options)
    typed = dict(options)
    for option, value in options.items():
        if not isinstance(value, bool) and str(value) in get_args(hints[option]):
            value = str(value)  # YAML reads `version: 2` as a number
        try:
            typed[option] = TypeAdapter(hints[option]).validate_json(json.dumps(value), strict=True)
        except PydanticSchemaGenerationError:
            continue  # a type that only the pruner itself can check
        except (TypeError, ValidationError) as e:
            wanted = e.errors()[0]["msg"].lower() if isinstance(e, ValidationError) else "give a plain value"
            raise BadOption(option, f"pruner '{name}': option '{option}': {wanted}, not {value!r}") from e
    return typed


def source_files(cls: type[Pruner]) -> list[Path]:
    """List the files of a pruner and of those that it is derived from; a package's are all of its files."""
    from vtpbench.pruners.base import Pruner

    return [file for part in cls.__mro__ if issubclass(part, Pruner) and part is not Pruner for file in class_files(part)]


def class_files(cls: type) -> list[Path]:
    """List the files of a class: those of its package, or its own where it has none."""
    file = Path(inspect.getfile(cls))
    alone = sys.modules[cls.__module__].__package__ in ("", None, __package__)
    return [file] if alone else sorted(file.parent.rglob("*.py"))


def import_source(module: str, kind: str) -> Any:
    """Import a module by its name, or a file that ends in `.py`; `kind` says in messages what it holds."""
    if not module.endswith(".py"):
        return importlib.import_module(module)
    path = Path(module)
    if not path.is_file():
        near = [str(other) for other in sorted(path.parent.glob("*.py"))] if path.parent.is_dir() else []
        raise UserError(f"no {kind} file {path}; {did_you_mean(str(path), near)}")
    spec = importlib.util.spec_from_file_location(f"vtpbench_local_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # dataclasses look their module up there
    spec.loader.exec_module(loaded)
    return loaded
