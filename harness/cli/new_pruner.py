"""`vtpbench new-pruner`: write a package with one pruner, which can be installed and passes its own check."""

from __future__ import annotations

import keyword
import re
import sys
from importlib.resources import files
from pathlib import Path

from vtpbench.harness.host.files import write_atomic
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.registry import entries

PREFIX = "vtpbench-"
"""Of the distribution's name."""


def new_pruner(name: str, folder: Path = Path()) -> list[Path]:
    """Write the package into a new folder below `folder`, named like the distribution; returns the files.

    Raises
    ------
    UserError : a name that cannot be one or is taken, or a folder that is there already

    """
    words = _words(name)
    module = "_".join(words)
    target = folder / f"{PREFIX}{name}"
    if target.exists():
        raise UserError(f"{target} exists already; remove it, or choose another name or folder")
    facts = {
        "name": name,
        "distribution": target.name,
        "module": module,
        "class": "".join(word[0].upper() + word[1:] for word in words),
    }
    written = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{module}.py": "pruner.py",
        f"tests/test_{module}.py": "test.py",
    }
    texts = {target / place: _fill(template, facts) for place, template in written.items()}
    for path, text in texts.items():
        write_atomic(path, text.encode())
    return list(texts)


def _words(name: str) -> list[str]:
    """Take a name apart, or say why it cannot be one."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UserError(f"'{name}' cannot be a pruner's name; use small letters, digits and single hyphens, like my-method")
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or module in ("vtpbench", "torch", "transformers"):
        raise UserError(f"'{name}' would hide the Python module {module}; choose another name")
    taken = entries().get(name)
    if taken is not None:
        raise UserError(f"pruner '{name}' exists already, in {taken.distribution}; choose another name")
    return name.split("-")


def _fill(template: str, facts: dict[str, str]) -> str:
    from jinja2 import Environment, StrictUndefined

    text = files("vtpbench.harness.cli.templates").joinpath(f"{template}.jinja").read_text(encoding="utf-8")
    return Environment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(text).render(facts)
