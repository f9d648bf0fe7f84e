"""A part of a benchmark's questions, drawn by a seed: the same on every machine, in any order of rows, at any batch size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from vtpbench.harness.records.record import DrawInfo
from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset


def drawn(groups: Sequence[str], n: int, seed: int) -> list[int]:
    """Draw whole groups until they hold `n` questions; positions of the questions, ascending.

    A group's turn is the hash of the seed and its name. So a draw needs no generator and no order of rows, and a larger one
    of the same seed holds the smaller.

    Parameters
    ----------
    groups : group of each question
    n : questions that are wanted; the last group may add more
    seed : of the draw

    """
    sizes, chosen, left = Counter(groups), set[str](), n
    for name in sorted(sizes, key=lambda name: sha256(f"{seed}\0{name}".encode()).digest()):
        if left <= 0:
            break
        chosen.add(name)
        left -= sizes[name]
    return [i for i, name in enumerate(groups) if name in chosen]


def groups_of(questions: Dataset, together: str) -> list[str]:
    """Name the group of each question by a column, else by its first picture; a question without either is one of its own.

    Pictures are compared as they are stored, without being decoded.

    Raises
    ------
    UserError : there is no such column

    """
    if together and together not in questions.column_names:
        columns = ", ".join(questions.column_names)
        raise UserError(f"the questions have no column '{together}' (`together:` of the benchmark); columns are {columns}")
    values: Iterator[Any] = iter(questions[together]) if together else _pictures(questions)
    return [f"alone {i}" if value in (None, "") else str(value) for i, value in enumerate(values)]


def draw_questions(task: Any, limit: int, draw: DrawInfo) -> list[int]:
    """Draw among the questions of a task of lmms-eval; positions, ascending."""
    return drawn(groups_of(task.dataset[_split(task)], draw.together), limit, draw.seed)


def keep_questions(task: Any, positions: Sequence[int]) -> None:
    """Leave a task of lmms-eval no questions but those at some positions; it numbers them anew."""
    split = _split(task)
    tables = [task.dataset] if task.dataset_no_image is task.dataset else [task.dataset, task.dataset_no_image]
    for table in tables:
        table[split] = table[split].select(positions)
    task.task_docs = task.dataset[split]


def _split(task: Any) -> str:
    return str(task.config.test_split or task.config.validation_split)


def _pictures(questions: Dataset) -> Iterator[str | None]:
    """Hash the first picture of each question, stored as bytes or as a path; None where it shows none."""
    columns = [name for name, feature in questions.features.items() if _shows(feature)]
    if not columns:
        yield from [None] * len(questions)
        return
    for table in questions.select_columns(columns).with_format("arrow").iter(batch_size=64):
        for row in table.to_pylist():
            values = (item for value in row.values() for item in (value if isinstance(value, list) else [value]))
            first = next((value for value in values if value), None)
            yield None if first is None else sha256(first["bytes"] or first["path"].encode()).hexdigest()


def _shows(feature: Any) -> bool:
    """Whether a column holds a picture, or a list of them in one of the two forms that `datasets` has had."""
    from datasets import Image

    return isinstance(feature[0] if isinstance(feature, list) else getattr(feature, "feature", feature), Image)
