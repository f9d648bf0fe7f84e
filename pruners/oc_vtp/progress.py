"""What a training run leaves on disk besides its result: the state to resume from, and the log."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from vtpbench.pruners.errors import UserError


@dataclass(frozen=True)
class LogRow:
    """One line of `log.csv`; validation columns are empty where none was made. No times: a resumed log is the same."""

    step: int
    """Optimiser steps behind these weights."""
    lr: float | None = None
    slots: int | None = None
    loss: float | None = None
    grad_norm: float | None = None
    """Before clipping."""
    val_loss: float | None = None
    val_mse: float | None = None


class Log:
    """A CSV file of rows; reopening drops those after the step that the run resumes from."""

    def __init__(self, path: Path, step: int) -> None:
        self._path = path
        kept = [row for row in read_log(path) if row.step <= step] if path.exists() and step else []
        part = path.with_name(f".{path.name}.part")
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(column.name for column in fields(LogRow))
            writer.writerows(_cells(row) for row in kept)
        os.replace(part, path)

    def add(self, row: LogRow) -> None:
        """Append a row."""
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(_cells(row))


def read_log(path: Path) -> list[LogRow]:
    """Read `log.csv`, but for a last line that an interruption cut short."""
    text = path.read_bytes().decode()
    complete = text[: text.rfind("\n") + 1].splitlines()
    whole = ("step", "slots")
    return [
        LogRow(**{name: (int(cell) if name in whole else float(cell)) if cell else None for name, cell in row.items()})  # type: ignore[arg-type]  # `step` is never empty
        for row in csv.DictReader(complete)
    ]


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write the state in one move, so that an interruption leaves the former one."""
    part = path.with_name(f".{path.name}.part")
    torch.save(state, part)
    os.replace(part, path)


def load_state(path: Path, identity: str) -> dict[str, Any] | None:
    """Read the state of an interrupted run; None where there is none, an error where it was another run."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if state["identity"] != identity:
        raise UserError(f"{path.parent} holds a run with other options or features; choose another folder or delete it")
    return state


def _cells(row: LogRow) -> Sequence[str]:
    return ["" if value is None else repr(value) for value in asdict(row).values()]
