"""Stage (i) of the demo model: the vision tower alone, by dense supervision.

Every patch of the feature layer (-2) names the kind, colour and size of the object it belongs to, and CLS of the last two
layers names the set of objects in the picture. A language model trained on top then finds features that already mean
something; trained jointly from scratch it would wait for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionModel

from vtpbench.suites.demo.scenes import COLOURS, GRID, KINDS, SHAPES, SIZES, Scene

_COLOURS = list(COLOURS)
N_PAIRS = len(SHAPES) * len(_COLOURS) + len(KINDS) - len(SHAPES)
"""Entries of the CLS target: each coloured shape, then each glyph."""
BACKGROUND_WEIGHT = 0.15
"""Loss weight of a background patch; about one patch in eight is foreground."""


@dataclass(frozen=True)
class DenseTargets:
    """What the tower should say; background is the last class of each head.

    kind, colour, size : (n, patches) int64;  present : (n, N_PAIRS) float
    """

    kind: Tensor
    colour: Tensor
    size: Tensor
    present: Tensor

    def __getitem__(self, rows: Tensor) -> DenseTargets:
        """Take some images."""
        return DenseTargets(self.kind[rows], self.colour[rows], self.size[rows], self.present[rows])


def dense_targets(scenes: list[Scene], owners: np.ndarray) -> DenseTargets:
    """Turn scenes and their (n, GRID, GRID) owner maps into class maps."""
    maps = np.empty((3, len(scenes), GRID * GRID), dtype=np.int64)
    present = np.zeros((len(scenes), N_PAIRS), dtype=np.float32)
    for n, scene in enumerate(scenes):
        classes = [(KINDS.index(t.kind), _COLOURS.index(t.colour), SIZES.index(t.size)) for t in scene.things]
        lookup = np.array([*classes, (len(KINDS), len(_COLOURS), len(SIZES))])  # owner -1 picks the last row
        maps[:, n] = lookup[owners[n].reshape(-1)].T
        for kind, colour, _ in classes:
            glyph = kind - len(SHAPES)
            present[n, kind * len(_COLOURS) + colour if glyph < 0 else len(SHAPES) * len(_COLOURS) + glyph] = 1
    kind, colour, size = torch.from_numpy(maps)
    return DenseTargets(kind, colour, size, torch.from_numpy(present))


class DenseHeads(nn.Module):
    """The supervision heads; used in training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.kind = nn.Linear(width, len(KINDS) + 1)
        self.colour = nn.Linear(width, len(_COLOURS) + 1)
        self.size = nn.Linear(width, len(SIZES) + 1)
        self.present = nn.Linear(width, N_PAIRS)

    def loss(self, states: tuple[Tensor, ...], wanted: DenseTargets) -> tuple[Tensor, float]:
        """Score the tower's hidden states `(batch, 1 + patches, width)` of all layers.

        Returns the loss and the share of foreground patches whose kind is right.
        """
        x = self.norm(states[-2])
        patches = x[:, 1:]
        weight = torch.where(wanted.kind == len(KINDS), BACKGROUND_WEIGHT, 1.0)
        logits = self.kind(patches)
        loss = torch.zeros((), device=x.device)
        for out, target in ((logits, wanted.kind), (self.colour(patches), wanted.colour), (self.size(patches), wanted.size)):
            each = F.cross_entropy(out.flatten(0, 1).float(), target.flatten(), reduction="none")
            loss = loss + (each * weight.flatten()).sum() / weight.sum()
        for cls in (x[:, 0], self.norm(states[-1][:, 0])):
            loss = loss + 2 * F.binary_cross_entropy_with_logits(self.present(cls).float(), wanted.present)
        front = wanted.kind != len(KINDS)
        return loss, float((logits.argmax(-1) == wanted.kind)[front].float().mean())


def train_tower(
    tower: CLIPVisionModel,
    heads: DenseHeads,
    batch: Callable[[int], tuple[Tensor, DenseTargets]],
    steps: int,
    learning_rate: float,
    log: Callable[[str], None],
) -> None:
    """Train `tower` and `heads` in place; `batch(step)` gives normalised pixels `(b, 3, SIZE, SIZE)` and targets."""
    params = [*tower.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(params, lr=learning_rate, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps, pct_start=0.08)
    tower.train()
    for step in range(steps):
        pixels, wanted = batch(step)
        states = tower(pixel_values=pixels, output_hidden_states=True).hidden_states
        loss, hits = heads.loss(states, wanted)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        optimiser.step()
        schedule.step()
        if step % 25 == 0 or step == steps - 1:
            log(f"tower {step}/{steps} loss {loss.item():.3f} kind of foreground patches {hits:.3f}")
    tower.eval()


def initialise(tower: CLIPVisionModel) -> None:
    """Start positions as two-dimensional sinusoids as strong as the patches, so that neighbours find each other early."""
    width = tower.config.hidden_size
    frequency = 10000.0 ** (-torch.arange(width // 4) / (width // 4))
    angle = torch.arange(GRID)[:, None] * frequency * 2
    wave = torch.cat([angle.sin(), angle.cos()], -1)  # (GRID, width / 2)
    plane = torch.cat([wave[:, None].expand(GRID, GRID, -1), wave[None].expand(GRID, GRID, -1)], -1)
    with torch.no_grad():
        tower.embeddings.position_embedding.weight[1:] = 0.4 * plane.reshape(GRID * GRID, width)
