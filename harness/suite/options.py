"""What commands without a suite share: models, pruners and budgets named on the command line, written as in a suite."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

import vtpbench.suites
from vtpbench.harness.suite.bounded_yaml import read_value
from vtpbench.pruners.errors import UserError

DEMO = "demo"
"""Name of the embedded model."""
NEUTRAL = "Describe the image."
"""Asked where no question is given: pruners inside the language model need one."""


def model_path(name: str) -> str:
    """Find a model's hub id or folder: the embedded one's folder for `demo`, else what is given."""
    return str(Path(vtpbench.suites.__path__[0], "demo", "model")) if name == DEMO else name


def read_option(option: str, text: str, kind: Any) -> Any:
    """Read an option's YAML as a part of a suite, such as `PrunerSpec`; raises `UserError` that names the option."""
    try:
        value = read_value(text, option)
    except UserError as e:
        raise UserError(f"{option} {text}: this is not YAML; write a name, or 'name: {{option: value}}' in quotes") from e
    return validate_option(option, text, value, kind)


def validate_option(option: str, text: str, value: Any, kind: Any) -> Any:
    """Make a part of a suite of what an option's text means; raises `UserError` that names the option."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as e:
        raise UserError(f"{option} {text}: {e.errors()[0]['msg']}") from e


def read_options(settings: Iterable[str]) -> dict[str, Any]:
    """Read the `key=value` options of a pruner on the command line, values as YAML; raises `UserError`."""
    found = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--option {setting}: write key=value, e.g. --option layer=3")
        found[key.strip()] = read_value(text, f"--option {setting}")
    return found
