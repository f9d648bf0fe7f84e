"""How the questions of a batch lie in the pass behind their prefixes: alone, or several about one picture side by side in a row.

Such a row reads the keys and values of its prefix once for all its questions, of which each sees the prefix and itself. All is
known on the host, so that nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from vtpbench.harness.pruning.system_prompt import prepend_valid
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.transfer import copy_to_device

if TYPE_CHECKING:
    from torch import Tensor

CACHED = 1 / 8
"""What a column that a row has cached costs beside a new token: 3.3 and 28 microseconds on an H200 (docs/efficiency.md)."""
PAIR = 1 / 2048
"""What a token and a column that it may see cost beside a new token, by operations at a quarter of the rate of products."""
MOST, WIDEST = 8, 512
"""Questions of the longest length, and columns, that a row has room for on a GPU: rows must not be mostly mask.

On a processor each stands alone: there the copy, prompt by prompt, of what was cached costs more than the reading that it saves.
"""


@dataclass(frozen=True)
class QuestionRows:
    """Questions in rows that end in the last column.

    Attributes
    ----------
    pictures : of each row, the number of the picture whose prefix it stands behind
    questions : of each row, the numbers of its questions from left to right
    lengths : tokens of each question
    prefixes : tokens of each picture's prefix
    before : columns of what stands before all prefixes

    """

    pictures: tuple[int, ...]
    questions: tuple[tuple[int, ...], ...]
    lengths: tuple[int, ...]
    prefixes: tuple[int, ...]
    before: int = 0

    @cached_property
    def width(self) -> int:
        """Columns behind the prefixes."""
        return max(sum(self.lengths[q] for q in row) for row in self.questions)

    @property
    def prefix(self) -> int:
        """Columns of the longest prefix with what stands before it; all end in the same."""
        return self.before + max(self.prefixes)

    @property
    def cost(self) -> float:
        """What the pass costs, in new tokens."""
        return len(self.questions) * (self.width + CACHED * self.prefix + PAIR * self.width * (self.prefix + self.width))

    @property
    def apart(self) -> bool:
        """Whether each row is one question, in their order."""
        return all(row == (r,) for r, row in enumerate(self.questions))

    @property
    def padded(self) -> bool:
        """Whether a prompt, as prefix and question, is shorter than the longest prefix and the longest question."""
        return len(set(self.prefixes)) > 1 or len(set(self.lengths)) > 1

    @cached_property
    def places(self) -> dict[int, tuple[int, int]]:
        """Row and first column of each question."""
        found: dict[int, tuple[int, int]] = {}
        for r, row in enumerate(self.questions):
            column = self.width - sum(self.lengths[q] for q in row)
            for q in row:
                found[q] = r, column
                column += self.lengths[q]
        return found

    def tokens(self, width: int) -> Tensor:
        """Place of each token, `(rows, width)` int64, among prompts that end in column `width`, end to end; padding is 0."""
        index = torch.zeros(len(self.questions), self.width, dtype=torch.int64)
        for q, (r, column) in self.places.items():
            end = (q + 1) * width
            index[r, column : column + self.lengths[q]] = torch.arange(end - self.lengths[q], end)
        return index

    def last(self) -> Tensor:
        """Place of each question's last token, `(questions,)` int64, among the rows, one behind the other."""
        places = (self.places[q] for q in range(len(self.lengths)))
        return torch.tensor(
            [r * self.width + column + length - 1 for (r, column), length in zip(places, self.lengths, strict=True)]
        )

    def seen(self, device: torch.device) -> Tensor:
        """Which columns each token sees, `(rows, width, prefix + width)` bool; padding sees the prefix."""
        whose = torch.full((len(self.questions), self.width), -1)
        for q, (r, column) in self.places.items():
            whose[r, column : column + self.lengths[q]] = q
        before = self._prefixes(self.pictures)
        whose, before = copy_to_device(whose, device), copy_to_device(before, device)  # what follows is large, and made there
        alike = (whose[:, :, None] == whose[:, None]) & (whose >= 0)[:, None]
        return torch.cat([before[:, None].expand(-1, self.width, -1), alike.tril()], dim=-1)

    def cached(self) -> tuple[Tensor, Tensor]:
        """Row `(questions,)` and columns `(questions, prefix + longest question)` int64 of what is cached of each question.

        The prefix comes first, and the question ends in the last column; padding between is column 0.
        """
        longest = max(self.lengths)
        columns = torch.zeros(len(self.lengths), self.prefix + longest, dtype=torch.int64)
        columns[:, : self.prefix] = torch.arange(self.prefix)
        for q, length in enumerate(self.lengths):
            start = self.prefix + self.places[q][1]
            columns[q, columns.shape[1] - length :] = torch.arange(start, start + length)
        return torch.tensor([self.places[q][0] for q in range(len(self.lengths))]), columns

    def prompts(self) -> tuple[Tensor, Tensor]:
        """Row `(questions,)` and columns `(questions, before + longest prompt)` int64 of what is cached of each prompt.

        What stands before all comes first, and the prompt, its question right behind its prefix, ends in the last column;
        padding between is column 0.
        """
        lengths = [self.prefixes[picture] + own for picture, own in zip(self.whose, self.lengths, strict=True)]
        columns = torch.zeros(len(lengths), self.before + max(lengths), dtype=torch.int64)
        columns[:, : self.before] = torch.arange(self.before)
        for q, (length, own) in enumerate(zip(lengths, self.lengths, strict=True)):
            start = self.prefix + self.places[q][1]
            end = columns.shape[1]
            columns[q, end - length : end - own] = torch.arange(self.prefix - (length - own), self.prefix)
            columns[q, end - own :] = torch.arange(start, start + own)
        return torch.tensor([self.places[q][0] for q in range(len(lengths))]), columns

    @property
    def whose(self) -> list[int]:
        """Number of each question's picture."""
        pictures = {q: picture for picture, row in zip(self.pictures, self.questions, strict=True) for q in row}
        return [pictures[q] for q in range(len(self.lengths))]

    def valid(self) -> Tensor:
        """Which columns of these hold a token of each question, `(questions, prefix + longest question)` bool."""
        before = self._prefixes(self.whose)
        return torch.cat([before, self._behind(self.lengths, max(self.lengths))], dim=1)

    def _prefixes(self, pictures: Sequence[int]) -> Tensor:
        """Columns that hold the prefixes of pictures, `(rows, prefix)` bool."""
        return prepend_valid(self.before, self._behind([self.prefixes[picture] for picture in pictures], max(self.prefixes)))

    @staticmethod
    def _behind(lengths: Sequence[int], width: int) -> Tensor:
        """Columns of rows of so many tokens that end in the last of them, `(rows, width)` bool."""
        return torch.arange(width) >= width - torch.tensor(lengths)[:, None]


@lru_cache(256)
def side_by_side(
    pictures: tuple[int, ...], lengths: tuple[int, ...], prefixes: tuple[int, ...], most: int, before: int = 0
) -> QuestionRows:
    """Put questions into the rows that cost least; all rows of a sweep ask the same, and many behind prefixes of equal length.

    Parameters
    ----------
    pictures : number of each question's picture
    lengths : tokens of each question
    prefixes : tokens of each picture's prefix
    most : questions of the longest length that a row has room for; 1 = each stands alone
    before : columns of what stands before all prefixes

    """
    if most == 1:
        return QuestionRows(pictures, tuple((q,) for q in range(len(pictures))), lengths, prefixes, before)
    most = max(1, min(most, WIDEST // max(lengths), max(map(pictures.count, set(pictures)))))
    ways = [_rows(pictures, lengths, prefixes, max(lengths) * room, before) for room in range(1, most + 1)]
    return min(ways, key=lambda rows: rows.cost)


def _rows(pictures: tuple[int, ...], lengths: tuple[int, ...], prefixes: tuple[int, ...], room: int, before: int) -> QuestionRows:
    """Put each question, the longest first, into the first row of its picture that has room for it."""
    rows: list[list[int]] = []
    left: list[int] = []
    of_picture: dict[int, list[int]] = {}
    for q in sorted(range(len(lengths)), key=lambda q: -lengths[q]):
        own = of_picture.setdefault(pictures[q], [])
        fitting = next((row for row in own if left[row] >= lengths[q]), None)
        if fitting is None:
            fitting = len(rows)
            rows.append([])
            left.append(room)
            own.append(fitting)
        rows[fitting].append(q)
        left[fitting] -= lengths[q]
    rows.sort(key=min)
    return QuestionRows(tuple(pictures[row[0]] for row in rows), tuple(map(tuple, rows)), lengths, prefixes, before)
