"""The interface itself: what a view gives, and that its documentation names all of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import ClassVar, Literal, get_args

import pytest
import torch
from torch import Tensor

from vtpbench.pruners.base import (
    DECODER_KINDS,
    TEXT_KINDS,
    Cut,
    Evidence,
    Grid,
    Kind,
    ModelShape,
    Pruner,
    Selection,
    TextView,
    TokenView,
)

DOCS = Path(__file__).parents[2] / "docs" / "pruners.md"
SHAPE = ModelShape("test", 32, 4, 32, 24, 32, 22, True, tuple(range(24)))


def view(evidence: dict[Evidence, Tensor], text: TextView | None = None) -> TokenView:
    features = torch.arange(12.0).reshape(2, 6, 1)
    index = torch.arange(6).expand(2, -1)
    return TokenView(Cut(0, 4), 0, features, index, Grid(2, 1, 3), SHAPE, ("a", "b"), evidence, text=text)


def documented(heading: str) -> dict[str, list[str]]:
    """Rows of the first table below a heading of the documentation, by what stands in their first cell."""
    section = DOCS.read_text().partition(f"### {heading}\n")[2].partition("\n### ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")]
    return {row[0].strip("`"): row[1:] for row in rows[2:]}


def test_the_documentation_names_every_field_of_a_view_and_no_other() -> None:
    assert list(documented("What a pruner sees")) == [field.name for field in fields(TokenView)]


def test_the_documentation_names_every_field_of_a_selection_and_no_other() -> None:
    assert list(documented("What a pruner gives")) == [field.name for field in fields(Selection)]


def test_the_documentation_names_every_kind_of_evidence_in_its_place() -> None:
    rows = documented("Evidence")
    assert list(rows) == list(get_args(Kind))
    assert {kind for kind, row in rows.items() if row[2] == "yes"} == set(TEXT_KINDS)
    late = list(rows)[list(rows).index("row") :]
    assert set(late) == set(DECODER_KINDS), "the text says from which row on it is evidence of the language model"


def test_the_imports_of_the_documentation_are_there() -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    (imports,) = (block for block in blocks if block.startswith("from vtpbench.pruners.base import Cut, Evidence, Grid"))
    exec(imports, {})


def test_evidence_is_looked_up_by_kind_and_layer() -> None:
    shallow, deep, cls = torch.zeros(2, 6), torch.ones(2, 6), torch.full((2, 6), 2.0)
    shown = view({Evidence("received", 8): shallow, Evidence("received", 22): deep, Evidence("cls", 22): cls})
    assert shown.get("cls") is cls
    assert shown.get("cls", 22) is cls
    assert shown.get("received", 8) is shallow
    for kind, layer in (("received", None), ("cls", 8), ("keys", None)):
        with pytest.raises(
            KeyError, match=rf"'{kind}' of layer {layer} .* received of layer 8, received of layer 22, cls of layer 22"
        ):
            shown.get(kind, layer)


def test_text_has_evidence_of_its_own() -> None:
    words = torch.zeros(2, 3, 8)
    text = TextView(torch.ones(2, 3, dtype=torch.bool), {Evidence("states"): words})
    assert text.get("states") is words
    with pytest.raises(KeyError, match="what `needs` asked for here: states of layer 0"):
        text.get("normed")


@dataclass(frozen=True)
class Halves(Pruner):
    """Divides what it sees into a first and a second half."""

    scope: ClassVar[Literal["image", "tile"]] = "image"

    def score(self, view: TokenView) -> Tensor:
        return view.features[..., 0]

    def segments(self, view: TokenView) -> Tensor:
        return (torch.arange(view.n) >= view.n / 2).long().expand(len(view.features), -1)


@dataclass(frozen=True)
class HalvesOfTiles(Halves):
    """The same in every tile."""

    scope: ClassVar[Literal["image", "tile"]] = "tile"


def test_segments_of_tiles_are_told_apart() -> None:
    assert Halves().apply_segments(view({})).tolist() == [[0, 0, 0, 1, 1, 1]] * 2
    assert HalvesOfTiles().apply_segments(view({})).tolist() == [[0, 0, 1, 2, 2, 3]] * 2
    inside = replace(view({}), cut=Cut(3, 4))
    assert HalvesOfTiles().apply_segments(inside).tolist() == [[0, 0, 0, 1, 1, 1]] * 2


def test_a_pruner_without_groups_says_so() -> None:
    assert Pruner().apply_segments(view({})) is None
