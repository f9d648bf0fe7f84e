import pytest
import torch
from PIL.Image import Image

from vtpbench.harness.models.tiny import tiny_llava_next
from vtpbench.harness.pruning.batch import VisionTokens
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.pruners.base import Pruner
from vtpbench.pruners.registry import build


def encoded(pruner: Pruner, images: list[Image], images_per_pass: int) -> tuple[VisionTokens, int]:
    """Two images of five tiles, half of whose tokens are to stay, and how many passes they took."""
    family, passes = tiny_llava_next(), []
    family.images_per_pass = images_per_pass
    family.model.model.vision_tower.register_forward_pre_hook(lambda module, args: passes.append(module))
    (tokens,) = Pipeline(family, pruner, lambda n: n // 2).encode(images)
    return tokens, len(passes)


@pytest.mark.parametrize("name", ["tome", "visionzip", "random"])
def test_several_passes_give_what_one_gives(name: str, tools):
    pruner, images = build(name, {}), [tools.picture(40, 30), tools.picture(20, 48, 1)]
    one, passes = encoded(pruner, images, 32)
    assert passes == 1
    several, passes = encoded(pruner, images, 3)
    assert passes == 4
    torch.testing.assert_close(several.features, one.features, rtol=0, atol=1e-5)
    assert several.index.tolist() == one.index.tolist()
    assert (several.tower, several.grid) == (one.tower, one.grid)
    for need, value in one.evidence.items():
        torch.testing.assert_close(several.evidence[need], value, rtol=0, atol=1e-5)
