"""Images and prompts on their way: behind the vision tower, behind the cut at depth 0, as they enter the language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from vtpbench.harness.pruning.layout import PromptLayout
from vtpbench.harness.pruning.schedule import Schedule
from vtpbench.harness.pruning.system_prompt import SystemPrompt, prepend_valid
from vtpbench.pruners.base import Cut, Evidence, Grid
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.transfer import copy_to_device

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ImageGroup:
    """Images of one geometry, preprocessed; a family adds what its tower takes.

    Attributes
    ----------
    members : their numbers among the images that are encoded together
    grid : how the tower's tokens of an image lie
    tokens : tokens with which an image enters the language model where none is taken away

    """

    members: tuple[int, ...]
    grid: Grid
    tokens: int


@dataclass(frozen=True)
class VisionTokens:
    """Encoded images with equally many tokens.

    Attributes
    ----------
    members : their numbers among the images that were encoded together
    features : (images, n, width) features before the projector
    index : (images, n) place of each token among those that `grid` lays out, -1 for one that has none
    cls : (images, tiles, width) float32 or None
    grid : how the tokens lie where none leaves the tower
    evidence : what was asked for
    original : tokens of an image at full size, with all that its family puts between them
    schedule : what the pruner plans for them
    tower : tokens of a tile that entered the MLP of each layer of the tower; empty where it did not run
    invalid : scalar bool, whether a selection inside the tower must be refused, or None; asked after the answer

    """

    members: tuple[int, ...]
    features: Tensor
    index: Tensor
    cls: Tensor | None
    grid: Grid
    evidence: dict[Evidence, Tensor]
    original: int
    schedule: Schedule
    tower: tuple[int, ...]
    invalid: Tensor | None = None

    def shown_as(self, shown: Sequence[int]) -> VisionTokens:
        """Repeat images: entry n is image number `shown[n]`; entries of other groups are left out."""
        row = {member: n for n, member in enumerate(self.members)}
        entries = [n for n, image in enumerate(shown) if image in row]
        rows = copy_to_device(torch.tensor([row[shown[n]] for n in entries]), self.features.device)
        cls = None if self.cls is None else self.cls[rows]
        evidence = {need: value[rows] for need, value in self.evidence.items()}
        return replace(
            self, members=tuple(entries), features=self.features[rows], index=self.index[rows], cls=cls, evidence=evidence
        )


@dataclass(frozen=True)
class ImageTokens:
    """One image after the cut at depth 0.

    Attributes
    ----------
    key : name of the image, for seeded draws
    features : (k, vision width) tower features of what is left, before the projector; behind it where they are `projected`
    index : (k,) place of each token among the image's `original` tokens, -1 for one that has none
    original : tokens before pruning
    grid : how they lay
    schedule : what the pruner plans; cuts at depth 0 are done already
    tower : tokens of a tile that entered the MLP of each layer of the vision tower; empty where it did not run
    invalid : scalar bool, whether what was selected so far must be refused, or None; on the device, asked after the answer
    projected : whether the pruner gave features in the language model's space

    """

    key: str
    features: Tensor
    index: Tensor
    original: int
    grid: Grid
    schedule: Schedule
    tower: tuple[int, ...] = ()
    invalid: Tensor | None = None
    projected: bool = False

    @property
    def later_cuts(self) -> tuple[Cut, ...]:
        """What remains to be done inside the language model."""
        return self.schedule.later_cuts

    def without_later_cuts(self) -> ImageTokens:
        """Take the same image where nothing leaves inside the language model."""
        now = tuple(c for c in self.schedule.cuts if c.at == 0)
        return replace(self, schedule=replace(self.schedule, cuts=now)) if self.later_cuts else self

    def taken(self, rows: Tensor) -> ImageTokens:
        """Take some rows, `(k,)`, in their order."""
        return replace(self, features=self.features[rows], index=self.index[rows])

    def kept(self, later: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Find what stays at each cut, places among the original tokens; where there is no cut, all that the tower gave.

        `later` is the decoder's trace of this image: what stays at the cuts inside.
        """
        left = {0: self.index, **later}
        return {at: left[at] for at in sorted({cut.at for cut in self.schedule.cuts} or {0}) if at in left}


class UnknownNames(tuple[str, ...]):
    """Stands for the names of pictures in what is captured: draws by them are another batch's the next time."""

    __slots__ = ()

    def _refuse(self, *_: object) -> NoReturn:
        raise RuntimeError("the pruner asks for the names of the pictures inside the language model")

    __iter__ = __getitem__ = __len__ = __contains__ = __repr__ = __eq__ = __hash__ = _refuse


@dataclass(frozen=True)
class PromptBatch:
    """Prompts ready for the language model, left-padded.

    Attributes
    ----------
    embeds : (rows, width, dim)
    positions : (rows, width) int64, or (axes, rows, width) where positions have several axes
    layout : where what stands
    images : in the numbering of the layout
    heads : token ids of each prompt before its first image
    added : of each image, `(levels, k, dim)` what is added to its tokens behind decoder layers 0, 1, ...; empty = nothing is
    named : whether pruners may ask for the images' names
    system : what stands before all prompts and is no part of layout, embeddings and positions; None = nothing

    """

    embeds: Tensor
    positions: Tensor
    layout: PromptLayout
    images: tuple[ImageTokens, ...]
    heads: tuple[tuple[int, ...], ...] = ()
    added: tuple[Tensor, ...] = ()
    named: bool = True
    system: SystemPrompt | None = None

    @property
    def before(self) -> int:
        """Columns that are cached before the prompts."""
        return 0 if self.system is None else len(self.system)

    @property
    def valid(self) -> Tensor | None:
        """Which columns hold a token, `(rows, all columns)` bool with those before; None where all do."""
        layout = self.layout
        return prepend_valid(self.before, layout.valid(self.embeds.device)) if layout.padded else None

    def behind(self, system: SystemPrompt) -> PromptBatch:
        """Take off what all prompts begin with."""
        count = len(system)
        return replace(
            self,
            embeds=self.embeds[:, count:],  # of shorter prompts, some of it becomes padding
            positions=self.positions[..., count:],
            layout=self.layout.without_first(count),
            system=system,
        )

    def names(self, images: Sequence[int]) -> tuple[str, ...]:
        """Name some images; refuses to be asked where the batch does not know."""
        return tuple(self.images[i].key for i in images) if self.named else UnknownNames()
