"""Evidence from the vision tower of a Qwen-VL model, of which four patches make one vision token.

The four stand next to each other in the sequence, and are called a unit. Where blocks look at windows, as in Qwen2.5-VL, whole
units are put into the order of the windows before the first block; everything that comes out of a block is brought back here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vtpbench.harness.pruning.encoder_evidence import RecordedActivations
from vtpbench.pruners.base import Evidence
from vtpbench.pruners.errors import Unsupported
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

_CHUNK = 512  # query rows at a time: bounds the memory of a large image's attention, changes no result


def window_order(height: int, width: int, side: int, device: torch.device) -> Tensor:
    """Units of an image in the order of windows of `side` x `side` units, `(height * width,)`; raster within a window."""
    row, column = torch.arange(height, device=device)[:, None] // side, torch.arange(width, device=device) // side
    return (row * width + column).flatten().argsort(stable=True)


def block_evidence(
    name: str, blocks: nn.ModuleList, full: Iterable[int], seen: RecordedActivations, needs: Iterable[Evidence], order: Tensor
) -> dict[Evidence, Tensor]:
    """Evidence per image over its vision tokens in raster order.

    `hidden`, `received`, `keys` and `keys_all_heads` are means over the patches of a unit; keys are those after the rotary
    embedding.

    Parameters
    ----------
    name : of the model, for messages
    blocks : of the tower
    full : blocks in which every patch sees every other
    seen : one pass over images of equal size
    needs : kinds other than these are left out
    order : units of one image, by raster number, in the order in which they stand between the blocks

    Raises
    ------
    Unsupported : attention is asked of a block that looks at windows only, or of CLS

    """
    raster = order.argsort()
    found = {}
    for need in needs:
        number = need.layer % len(blocks)
        if need.kind == "hidden":
            patches = seen.outputs[number].unflatten(0, (-1, 4 * len(order)))
        elif need.kind == "received":
            if number not in full:
                raise Unsupported(f"block {number} of {name} attends within windows; full attention: {', '.join(map(str, full))}")
            patches = _received(blocks[number], seen, number, 4 * len(order))
        elif need.kind == "keys":
            patches = _rotated(blocks[number], seen, number)[1].mean(1).unflatten(0, (-1, 4 * len(order)))
        elif need.kind == "keys_all_heads":
            patches = _rotated(blocks[number], seen, number)[1].flatten(1).unflatten(0, (-1, 4 * len(order)))
        elif need.kind in ("cls", "cls_one_head"):
            raise Unsupported(f"the vision tower of {name} has no CLS token")
        else:
            continue
        found[need] = patches.float().unflatten(1, (-1, 4)).mean(2)[:, raster]
    return found


def _rotated(block: Any, seen: RecordedActivations, number: int) -> tuple[Tensor, Tensor]:
    """Compute queries and keys of a block after the rotary embedding, each `(patches, heads, head dim)` float32."""
    query, key, _ = seen.projected[number, "qkv"].unflatten(-1, (3, block.attn.num_heads, -1)).unbind(1)
    cosine, sine = (table.float().unsqueeze(1) for table in seen.rotary[number])

    def rotate(x: Tensor) -> Tensor:
        left, right = x.float().chunk(2, dim=-1)
        return x.float() * cosine + torch.cat([-right, left], dim=-1) * sine

    return rotate(query), rotate(key)


def _received(block: Any, seen: RecordedActivations, number: int, patches: int) -> Tensor:
    """Average the attention that each patch receives within its image, over heads and queries, `(images, patches)`."""
    query, key = _rotated(block, seen, number)
    images = zip(query.split(patches), key.split(patches), strict=True)
    return torch.stack([_received_in(q.transpose(0, 1), k.transpose(0, 1)) for q, k in images])


def _received_in(query: Tensor, key: Tensor) -> Tensor:
    """Do the same for one image, from `(heads, patches, head dim)` to `(patches,)`."""
    total = torch.zeros(key.shape[1], device=key.device)
    for part in query.split(_CHUNK, dim=1):
        total += (part @ key.mT * part.shape[-1] ** -0.5).softmax(-1).mean(0).sum(0)
    return total / key.shape[1]
