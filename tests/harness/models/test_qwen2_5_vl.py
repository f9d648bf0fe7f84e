from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from vtpbench.harness.models.qwen2_5_vl import Qwen25VL
from vtpbench.harness.models.qwen_attention import window_order
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.pruning.schedule import collecting
from vtpbench.pruners.base import Evidence, Pruner, TokenView
from vtpbench.pruners.errors import Unsupported

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def family(tiny) -> Qwen25VL:
    return tiny("qwen2_5_vl")


@dataclass(frozen=True)
class ByWhereItIs(Pruner):
    """Ranks tokens by a vision layer's mean feature, which the test has made to be the raster id."""

    def needs(self, shape):
        return frozenset({Evidence("hidden", 2)})

    def score(self, view: TokenView) -> Tensor:
        return view.evidence[Evidence("hidden", 2)].mean(-1)


def test_windows_are_those_of_the_model() -> None:
    vision_utils = pytest.importorskip("transformers.vision_utils")
    for height, width in ((4, 4), (5, 7), (3, 2), (1, 9)):
        sizes = torch.tensor([[1, 2 * height, 2 * width]])
        index, _ = vision_utils.get_vision_window_index(sizes, spatial_merge_size=2, window_size=16, patch_size=4)
        assert window_order(height, width, 2, CPU).tolist() == index.tolist()


def test_a_score_that_is_the_raster_id_comes_back_sorted(family, tools) -> None:
    """Make block 2 put out each unit's raster id: in window order, as the tower has it there."""
    image = tools.picture(40, 30)

    def number(module, args, output):
        ids = window_order(4, 5, 2, CPU).float().repeat_interleave(4)
        return ids[:, None].expand_as(output).clone()

    handle = family.model.model.visual.blocks[2].register_forward_hook(number)
    pipeline = Pipeline(family, ByWhereItIs(), lambda n: 6)
    (found,) = pipeline.encode([image])
    handle.remove()
    assert found.evidence[Evidence("hidden", 2)].mean(-1).tolist() == [list(range(20))]
    kept = pipeline.select([found], ["key"])[0]
    assert kept.index.tolist() == [14, 15, 16, 17, 18, 19]


def test_attention_within_windows_is_refused(family, tools) -> None:
    with pytest.raises(Unsupported, match="windows; full attention: 1, 3"):
        Pipeline(family, collecting(Evidence("received", 2))).encode([tools.picture(40, 30)])
