"""The sequence between two cuts inside the decoder: what stands where, and the tables and masks that its layers get."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vtpbench.harness.pruning.layout import PromptLayout
from vtpbench.harness.pruning.system_prompt import prepend_valid
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.transfer import copy_to_device

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SequenceStage:
    """The sequence between two cuts.

    Attributes
    ----------
    at : first decoder layer that sees it
    layout : where what stands
    positions : position ids, last two dimensions (rows, width)
    rotary : cosine and sine tables, each (rows, width, head dim)
    mask : as the attention kernel of the prefill takes it, or None
    shift : (rows, 1) by how much a renumbered position is smaller than the original, or None
    index : per image, (n,) place of each token among the original ones

    """

    at: int
    layout: PromptLayout
    positions: Tensor
    rotary: tuple[Tensor, Tensor]
    mask: Tensor | None
    shift: Tensor | None
    index: Mapping[int, Tensor]


@dataclass(frozen=True)
class CutResult:
    """What a cut leaves of one image: the arriving tokens that its rows continue, their original places, merged rows or None."""

    index: Tensor
    places: Tensor
    features: Tensor | None

    def continued(self, rows: Tensor) -> Tensor:
        """Take of what belongs to the arriving tokens, `(levels, n, dim)`, that of the ones that go on; 0 for rows without one.

        A merged row so takes what belongs to the token whose place it has.
        """
        taken = rows[:, self.index.clamp(min=0)]
        return taken if self.features is None else taken.masked_fill((self.index < 0)[:, None], 0)


def gather_index(old: PromptLayout, new: PromptLayout, kept: Mapping[int, CutResult], device: torch.device) -> Tensor:
    """Column of the old sequence that each column of the new one continues, `(rows, new width)`; padding takes column 0."""
    host = torch.zeros(len(new.rows), new.width, dtype=torch.int64)
    for r, row in enumerate(new.rows):
        source, target = old.width - old.lengths[r], new.width - new.lengths[r]
        for part, was in zip(row, old.rows[r], strict=True):
            if part.length == was.length:
                host[r, target : target + part.length] = torch.arange(source, source + part.length)
            source, target = source + was.length, target + part.length
    index = copy_to_device(host, device)
    for image, left in kept.items():
        place = new.places[image]
        index[place.row, place.start : place.start + place.length] = old.places[image].start + left.index
    return index


def prefill_mask(
    before: Tensor | None, layout: PromptLayout, device: torch.device, flash: bool, cached: int = 0
) -> Tensor | None:
    """Write the causal mask of the new sequence as the kernel takes it; padding is seen by nobody but itself.

    All see the `cached` columns that come first. The order is that of the new sequence: a merged row may stand behind tokens
    that it stood before.
    """
    if not layout.padded and (flash or (before is None and not cached)):
        return None
    valid = layout.valid(device)
    if flash:
        return valid
    column = torch.arange(layout.width, device=device)
    seen = (column <= column[:, None]) & valid[:, None, None, :]
    own = seen | ((column == column[:, None]) & ~valid[:, None, :, None])
    return like(before, prepend_valid(cached, own))


def step_mask(
    before: Tensor | None, layout: PromptLayout, new: int, device: torch.device, flash: bool, cached: int = 0
) -> Tensor | None:
    """Write the mask of a decoding step, which sees `new` columns more than the prefill, and `cached` ones before it."""
    if not layout.padded:
        return None
    valid = torch.nn.functional.pad(layout.valid(device), (cached, new), value=True)
    return valid if flash else like(before, valid[:, None, None, :])


def like(example: Tensor | None, seen: Tensor) -> Tensor:
    """Write what is seen as the kernel that takes `example` wants it."""
    if example is None or example.dtype == torch.bool:
        return seen
    return torch.zeros_like(seen, dtype=example.dtype).masked_fill(~seen, torch.finfo(example.dtype).min)


def seen_mask(decoder: Any, seen: Tensor) -> Tensor:
    """Write which columns the tokens of one column see, `(rows, columns)` bool, as the decoder's attention kernel takes it.

    Transformers would do so in every step, and wait for the device to learn whether it is needed.
    """
    return seen if "flash" in decoder.config._attn_implementation else seen_by_each(decoder, seen[:, None])


def seen_by_each(decoder: Any, seen: Tensor) -> Tensor:
    """Write which columns each token sees, `(rows, tokens, columns)` bool, for a kernel that is no FlashAttention."""
    eager = decoder.config._attn_implementation == "eager"
    return like(torch.empty(0, dtype=decoder.dtype), seen[:, None]) if eager else seen[:, None]
