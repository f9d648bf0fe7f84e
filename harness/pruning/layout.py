"""Where text and vision tokens stand in a batch of left-padded prompts."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from vtpbench.pruners.lazy import torch
from vtpbench.pruners.transfer import copy_to_device

if TYPE_CHECKING:
    from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")


def _remembered(make: Callable[Concatenate[PromptLayout, P], T]) -> Callable[Concatenate[PromptLayout, P], T]:
    """Make tensors of a layout once for each set of arguments: every cut, and much evidence, asks for the same."""

    @wraps(make)
    def ask(layout: PromptLayout, /, *asked: P.args, **named: P.kwargs) -> T:
        key = make.__name__, *(tuple(each) if isinstance(each, Sequence) else each for each in (*asked, *named.values()))
        if key not in layout.made:
            layout.made[key] = make(layout, *asked, **named)
        found: T = layout.made[key]
        return found

    return ask


@dataclass(frozen=True)
class Span:
    """A run of tokens of one prompt: text, or what is left of image number `image` of the batch."""

    length: int
    image: int | None = None


@dataclass(frozen=True)
class ImageSpan:
    """Where an image stands: prompt `row`, columns `start` to `start + length`."""

    row: int
    start: int
    length: int


@dataclass(frozen=True)
class PromptLayout:
    """Prompts as runs of text and images; every prompt ends in the last column. Known on the host, so that asking it
    never waits for the device.
    """  # noqa: D205 - one sentence and its reason

    rows: tuple[tuple[Span, ...], ...]

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each prompt, padding left out."""
        return tuple(sum(p.length for p in row) for row in self.rows)

    @cached_property
    def width(self) -> int:
        """Columns of the batch: tokens of the longest prompt."""
        return max(self.lengths)

    @property
    def padded(self) -> bool:
        """Whether any prompt is shorter than the batch is wide."""
        return min(self.lengths) < self.width

    @cached_property
    def starts(self) -> tuple[tuple[int, int, Span], ...]:
        """Row and first column of each run of tokens."""
        found: list[tuple[int, int, Span]] = []
        for r, row in enumerate(self.rows):
            column = self.width - self.lengths[r]
            for part in row:
                found.append((r, column, part))
                column += part.length
        return tuple(found)

    @cached_property
    def places(self) -> Mapping[int, ImageSpan]:
        """Row, first column and length of each image, by its number in the batch."""
        return {part.image: ImageSpan(r, column, part.length) for r, column, part in self.starts if part.image is not None}

    @property
    def by_kind(self) -> tuple[Tensor, Tensor]:
        """Places of the text tokens and of the vision tokens, `(n,)` each, in a batch whose rows stand one behind the other."""
        text, vision = list["Tensor"](), list["Tensor"]()
        for r, column, part in self.starts:
            start = r * self.width + column
            (text if part.image is None else vision).append(torch.arange(start, start + part.length))
        nothing = torch.empty(0, dtype=torch.int64)
        return torch.cat([nothing, *text]), torch.cat([nothing, *vision])

    @_remembered
    def valid(self, device: torch.device) -> Tensor:
        """Columns that hold a token, `(rows, width)` bool."""
        first = copy_to_device(torch.tensor([self.width - n for n in self.lengths]), device)
        return torch.arange(self.width, device=device) >= first[:, None]

    @_remembered
    def columns(self, images: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Rows `(images, 1)` and columns `(images, n)` of images with equally many tokens."""
        places = [self.places[i] for i in images]
        rows, starts = copy_to_device(torch.tensor([[p.row, p.start] for p in places]), device).split(1, dim=1)
        return rows, starts + torch.arange(places[0].length, device=device)

    @_remembered
    def text_after(self, images: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Columns of the text after the prompt's last image, right-aligned `(images, text)`, and which of them are real."""
        counts = []
        for image in images:
            row = self.rows[self.places[image].row]
            last = max(n for n, part in enumerate(row) if part.image is not None)
            counts.append(sum(p.length for p in row[last + 1 :]))
        columns = torch.arange(self.width - max(counts), self.width, device=device).expand(len(counts), -1)
        first = copy_to_device(torch.tensor([self.width - c for c in counts]), device)
        return columns, columns >= first[:, None]

    @cached_property
    def made(self) -> dict[Hashable, Any]:
        """What was made of this layout so far, by method and arguments."""
        return {}

    def without_first(self, count: int) -> PromptLayout:
        """Take the same prompts without so many tokens of text that each begins with."""
        rest = ((replace(first, length=first.length - count), *others) for first, *others in self.rows)
        return PromptLayout(tuple(row if row[0].length else row[1:] for row in rest))

    def shortened(self, keep: Mapping[int, int]) -> PromptLayout:
        """Take the same prompts with fewer tokens for some images."""

        def part(p: Span) -> Span:
            return p if p.image is None else Span(keep.get(p.image, p.length), p.image)

        return PromptLayout(tuple(tuple(part(p) for p in row) for row in self.rows))
