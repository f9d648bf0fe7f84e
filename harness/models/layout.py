"""Where text and vision tokens stand in a batch of left-padded prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from vtpbench.pruners.sending import send


@dataclass(frozen=True)
class Part:
    """A run of tokens of one prompt: text, or what is left of image number `image` of the batch."""

    length: int
    image: int | None = None


@dataclass(frozen=True)
class Place:
    """Where an image stands: prompt `row`, columns `start` to `start + length`."""

    row: int
    start: int
    length: int


@dataclass(frozen=True)
class Layout:
    """Prompts as runs of text and images; every prompt ends in the last column. Known on the host, so that asking it
    never waits for the device.
    """  # noqa: D205 - one sentence and its reason

    rows: tuple[tuple[Part, ...], ...]

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each prompt, padding left out."""
        return tuple(sum(p.length for p in row) for row in self.rows)

    @cached_property
    def width(self) -> int:
        """Columns."""
        return max(self.lengths)

    @property
    def padded(self) -> bool:
        """Whether any prompt is shorter than the batch is wide."""
        return min(self.lengths) < self.width

    @cached_property
    def places(self) -> Mapping[int, Place]:
        """Each image's place."""
        found: dict[int, Place] = {}
        for r, row in enumerate(self.rows):
            column = self.width - self.lengths[r]
            for part in row:
                if part.image is not None:
                    found[part.image] = Place(r, column, part.length)
                column += part.length
        return found

    def valid(self, device: torch.device) -> Tensor:
        """Columns that hold a token, `(rows, width)` bool."""
        if device not in self._valid:
            first = send(torch.tensor([self.width - n for n in self.lengths]), device)
            self._valid[device] = torch.arange(self.width, device=device) >= first[:, None]
        return self._valid[device]

    @cached_property
    def _valid(self) -> dict[torch.device, Tensor]:
        return {}

    def columns(self, images: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Rows `(images, 1)` and columns `(images, n)` of images with equally many tokens."""
        asked = tuple(images), device
        if asked not in self._columns:
            places = [self.places[i] for i in images]
            rows, starts = send(torch.tensor([[p.row, p.start] for p in places]), device).split(1, dim=1)
            self._columns[asked] = rows, starts + torch.arange(places[0].length, device=device)
        return self._columns[asked]

    @cached_property
    def _columns(self) -> dict[tuple[tuple[int, ...], torch.device], tuple[Tensor, Tensor]]:
        return {}

    @cached_property
    def _text_after(self) -> dict[tuple[tuple[int, ...], torch.device], tuple[Tensor, Tensor]]:
        return {}

    def text_after(self, images: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Columns of the text after the prompt's last image, right-aligned `(images, text)`, and which of them are real."""
        asked = tuple(images), device
        if asked not in self._text_after:
            counts = []
            for image in images:
                row = self.rows[self.places[image].row]
                last = max(n for n, part in enumerate(row) if part.image is not None)
                counts.append(sum(p.length for p in row[last + 1 :]))
            columns = torch.arange(self.width - max(counts), self.width, device=device).expand(len(counts), -1)
            first = send(torch.tensor([self.width - c for c in counts]), device)
            self._text_after[asked] = columns, columns >= first[:, None]
        return self._text_after[asked]

    def shortened(self, keep: Mapping[int, int]) -> Layout:
        """Take the same prompts with fewer tokens for some images."""

        def part(p: Part) -> Part:
            return p if p.image is None else Part(keep.get(p.image, p.length), p.image)

        return Layout(tuple(tuple(part(p) for p in row) for row in self.rows))
