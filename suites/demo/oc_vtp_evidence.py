"""Show on held-out scenes what OC-VTP has learnt: `python -m vtpbench.suites.demo.oc_vtp_evidence --model DIR`."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from vtpbench.harness.models.family import Family
from vtpbench.harness.models.load import describe_model, open_model
from vtpbench.harness.pruning.batch import VisionTokens
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.pruning.schedule import collecting, resolve
from vtpbench.pruners.base import Evidence, Pruner
from vtpbench.pruners.hiprune import HiPrune
from vtpbench.pruners.oc_vtp import OCVTP
from vtpbench.pruners.oc_vtp.checkpoint import Header, load, save
from vtpbench.pruners.oc_vtp.config import TrainConfig
from vtpbench.pruners.oc_vtp.decoder import Reconstructor, draw_masking
from vtpbench.pruners.oc_vtp.network import OCPruner
from vtpbench.pruners.oc_vtp.pruner import FILE
from vtpbench.pruners.oc_vtp.task import seeded
from vtpbench.pruners.random import Random, private_generator
from vtpbench.pruners.visionzip import VisionZip
from vtpbench.suites.demo.data import SPLITS
from vtpbench.suites.demo.scenes import GRID, Thing, render, sample_scene

BUDGETS = (48, 32, 16)
SEEDS = (0, 1, 2)
GROUPS = ("objects", "small shapes", "large shapes", "glyphs")
TEXT = """\
{scenes} held-out scenes. Values are means over scenes, and over {seeds} seeds where a pruner draws at random (+- half the range).

- tokens: vision tokens kept.
- coverage error: every token's features at the vision layer that OC-VTP sees (module {layer}) are replaced by those of the most
  similar kept token; the squared error that is left, in % of the tokens' variance within the image. Needs no decoder, so that
  every pruner can be asked; lower is better.
- objects, small shapes, large shapes, glyphs: share, in %, of the scene's objects (or of those of that kind) of which at least
  one patch is kept. A merged row of VisionZip counts as the token whose place it takes.
"""

SLOT_TEXT = """
Error of rebuilding tokens from slots and a random prefix with the trained decoder, in % of the tokens' variance over all
scenes. The decoder never met the slots of an untrained pruner, so that column says little by itself; slots of another scene
show how much of the result is the decoder's own knowledge of scenes:
"""


@dataclass(frozen=True)
class Scenes:
    """Encoded pictures, the object `(scenes, tokens)` in each patch (-1 = none), and the objects themselves."""

    tokens: VisionTokens
    keys: tuple[str, ...]
    owners: np.ndarray
    things: list[tuple[Thing, ...]]

    def recall(self, kept: Sequence[Tensor]) -> dict[str, float]:
        """Share of objects with a kept token, in %, by group."""
        hits: dict[str, list[bool]] = {group: [] for group in GROUPS}
        for owner, things, index in zip(self.owners, self.things, kept, strict=True):
            seen = set(owner[index[index >= 0].numpy()])
            for n, thing in enumerate(things):
                group = "glyphs" if thing.is_glyph else f"{thing.size} shapes"
                hits[group].append(n in seen)
                hits["objects"].append(n in seen)
        return {group: 100 * fmean(found) for group, found in hits.items()}


def held_out(family: Family, needs: frozenset[Evidence], n: int) -> Scenes:
    """Paint and encode scenes that nothing was trained on."""
    scenes = [sample_scene((SPLITS["heldout"], 0, i)) for i in range(n)]
    painted = [render(scene) for scene in scenes]
    (tokens,) = Pipeline(family, collecting(*needs)).encode([image for image, _ in painted])
    owners = np.stack([owner.flatten() for _, owner in painted])
    return Scenes(tokens, tuple(f"heldout:{i}" for i in range(n)), owners, [scene.things for scene in scenes])


def coverage_error(hidden: Tensor, kept: Sequence[Tensor]) -> float:
    """Error of the nearest kept token, in % of the variance within the image; hidden `(scenes, n, width)`."""
    shares = []
    for tokens, index in zip(hidden, kept, strict=True):
        nearest = torch.cdist(tokens, tokens[index[index >= 0]]).square().min(-1).values
        shares.append(float(nearest.sum() / (tokens - tokens.mean(0)).square().sum()))
    return 100 * fmean(shares)


def measure(family: Family, scenes: Scenes, hidden: Tensor, pruner: Pruner, budget: int) -> dict[str, float]:
    """All columns of one pruner at one budget."""
    schedule = resolve(pruner, budget, scenes.tokens.original, scenes.tokens.grid, family.shape)
    evidence = {need: scenes.tokens.evidence[need] for need in schedule.needs}  # its own, as in a benchmark
    tokens = replace(scenes.tokens, evidence=evidence, schedule=schedule)
    chosen = Pipeline(family, pruner).select([tokens], scenes.keys)
    kept = [chosen[n].index for n in range(len(scenes.keys))]
    counted = {"tokens": fmean(len(index) for index in kept), "coverage error": coverage_error(hidden, kept)}
    return counted | scenes.recall(kept)


def table(family: Family, scenes: Scenes, hidden: Tensor, rows: dict[str, list[Pruner]], budget: int) -> str:
    """Markdown table of all pruners at one budget."""
    columns = ("tokens", "coverage error", *GROUPS)
    lines = [f"| {budget} tokens | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for name, pruners in rows.items():
        found = [measure(family, scenes, hidden, pruner, budget) for pruner in pruners]
        lines.append(f"| {name} | " + " | ".join(_cell([row[column] for row in found]) for column in columns) + " |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    spread = (max(values) - min(values)) / 2
    return f"{fmean(values):.1f}" + (f" +- {spread:.1f}" if spread else "")


@contextmanager
def untrained(checkpoint: Path) -> Iterator[Path]:
    """Write a checkpoint of the same sizes with first, random weights; removed on the way out."""
    trained = load(checkpoint)
    with tempfile.TemporaryDirectory() as folder, seeded(0, torch.device("cpu")):
        save(Path(folder, FILE), OCPruner(trained.dims).state_dict(), trained.header)
        yield Path(folder, FILE)


@torch.no_grad()
def slot_errors(hidden: Tensor, run: Path, header: Header) -> str:
    """Markdown table: masked decoding with the trained decoder, from slots of three origins."""
    config = TrainConfig.model_validate(header.config)
    model = Reconstructor(config.dims(hidden.shape[-1]), config.decoder(header.tokens)).eval()
    with seeded(0, torch.device("cpu")):
        first = OCPruner(config.dims(hidden.shape[-1])).eval()
    model.load_state_dict(load_file(run))
    token = torch.arange(hidden.shape[1])
    places = torch.stack([token // GRID, token % GRID], -1).expand(len(hidden), -1, -1)
    lines = ["| slots | trained | trained, of another scene | untrained |", "|---|---:|---:|---:|"]
    for count in BUDGETS:
        random = private_generator("evidence", count)
        noise = torch.randn(len(hidden), count, config.slot_dim, generator=random)
        masking = draw_masking(torch.ones(hidden.shape[:2], dtype=torch.bool), config.prefix, random)
        own = model.bind(hidden, noise)[0]
        origins = (own, own.roll(1, 0), first.bind(hidden, noise)[0])
        rebuilt, target = [model.decode(hidden, slots, masking, None, places) for slots in origins], model.decode.target(hidden)
        errors = [float((guess - target).square().mean() / target.var((0, 1)).mean()) for guess in rebuilt]
        lines.append(f"| {count} | " + " | ".join(f"{100 * error:.1f}" for error in errors) + " |")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder of the demo model")
    parser.add_argument("--checkpoint", type=Path, help="pruner; by default the one in the model's folder")
    parser.add_argument("--also", type=Path, action="append", default=[], help="another pruner, e.g. trained with loss: mse")
    parser.add_argument("--run", type=Path, help="best.safetensors of the training run, with the decoder")
    parser.add_argument("--scenes", type=int, default=500)
    arguments = parser.parse_args()
    described = describe_model("demo", arguments.model)
    family = open_model(described, torch.device("cpu"))
    checkpoint = arguments.checkpoint or described.folder / FILE
    with untrained(checkpoint) as first:
        rows: dict[str, list[Pruner]] = {
            "oc-vtp": [OCVTP(str(checkpoint), seed=seed) for seed in SEEDS],
            "oc-vtp (unpadded)": [OCVTP(str(checkpoint), seed=seed, pad="none") for seed in SEEDS],
            **{f"oc-vtp {file.stem}": [OCVTP(str(file), seed=seed) for seed in SEEDS] for file in arguments.also},
            "oc-vtp, untrained": [OCVTP(str(first), seed=seed) for seed in SEEDS],
            "oc-vtp, untrained (unpadded)": [OCVTP(str(first), seed=seed, pad="none") for seed in SEEDS],
            "visionzip": [VisionZip()],
            "hiprune": [HiPrune()],
            "random": [Random(seed) for seed in SEEDS],
        }
        needs = frozenset(need for pruners in rows.values() for need in pruners[0].needs(family.shape))
        scenes = held_out(family, needs, arguments.scenes)
        (seen,) = OCVTP(str(checkpoint), pad="none").needs(family.shape)
        hidden = scenes.tokens.evidence[seen]
        print(TEXT.format(scenes=arguments.scenes, seeds=len(SEEDS), layer=seen.layer))
        for budget in BUDGETS:
            print(table(family, scenes, hidden, rows, budget), end="\n\n")
    header = load(checkpoint).header
    print(f"Training: {header.images} images, best of {header.steps} steps at {header.step}; on images held out from it:")
    print(", ".join(f"{name} {value:.4g}" for name, value in header.validation.items()))
    if arguments.run:
        print(SLOT_TEXT)
        print(slot_errors(hidden, arguments.run, header))


if __name__ == "__main__":
    main()
