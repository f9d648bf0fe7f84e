from dataclasses import dataclass

import pytest
import torch
from torch.nn.functional import interpolate
from transformers import LlavaConfig

from vtpbench.harness.models.llava import Llava
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.pruning.schedule import collecting
from vtpbench.pruners.base import Evidence, Pruner
from vtpbench.pruners.errors import Unsupported
from vtpbench.pruners.registry import build

KINDS = ("hidden", "received", "cls", "keys", "cls_one_head", "keys_all_heads")
ALL = frozenset(Evidence(kind, layer) for kind in KINDS for layer in (0, 2, 3))


@dataclass(frozen=True)
class Shrinking(Pruner):
    def needs(self, shape):
        return frozenset({Evidence("received", 2)})

    def target_grid(self, budget, grid, shape):
        return 2, 3


@pytest.fixture(scope="module")
def family(tiny) -> Llava:
    return tiny("llava")


@torch.inference_mode()
def test_evidence_is_what_an_eager_tower_shows(family, tiny, tools) -> None:
    image = tools.picture(40, 30)
    (found,) = Pipeline(family, collecting(*ALL)).encode([image])
    eager = tiny("llava", attention="eager")
    pixels = eager.group([image])[0].pixels
    seen = eager.model.model.vision_tower(pixels, output_hidden_states=True, output_attentions=True)
    for need in ALL:
        attention = seen.attentions[need.layer].mean(1)
        if need.kind == "hidden":
            expected = seen.hidden_states[need.layer + 1][:, 1:]
        elif need.kind == "received":
            expected = attention.mean(1)[:, 1:]
        elif need.kind == "cls":
            expected = attention[:, 0, 1:]
        else:
            layer = eager.model.model.vision_tower.encoder.layers[need.layer]
            normed = layer.layer_norm1(seen.hidden_states[need.layer])
            keys, query = layer.self_attn.k_proj(normed), layer.self_attn.q_proj(normed)[:, :1]
            if need.kind == "keys":
                expected = keys.unflatten(-1, (4, 8)).mean(2)[:, 1:]
            elif need.kind == "keys_all_heads":
                expected = keys[:, 1:]
            else:
                expected = (query @ keys.mT / 32**0.5).softmax(-1)[:, 0, 1:]
        torch.testing.assert_close(found.evidence[need], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.features, seen.hidden_states[-2][:, 1:], rtol=0, atol=1e-5)


def test_pad_shows_the_whole_image_and_crop_its_middle(family, tools) -> None:
    image = tools.picture(48, 16)
    cropped = Llava(family.model, family.tokenizer, family.image_processor, family.chat_template, "crop")
    middle = image.crop((16, 0, 32, 16))
    assert torch.equal(cropped.group([image])[0].pixels, family.group([middle])[0].pixels)
    padded = family.group([image])[0].pixels
    assert padded[..., 0, :].abs().max() < 0.02  # the mean colour, but for rounding to 8 bits
    assert padded[..., 8, :].abs().max() > 0.2


def test_downsampling_shrinks_what_the_tower_sees(family, tools) -> None:
    image = tools.picture(40, 30)
    (found,) = Pipeline(family, Shrinking(), lambda n: n).encode([image])
    assert (found.grid.height, found.grid.width, found.original) == (2, 3, 16)
    assert found.evidence[Evidence("received", 2)].shape == (1, 6)
    tower = family.model.model.vision_tower
    small = interpolate(family.group([image])[0].pixels, (8, 12), mode="bicubic", antialias=True)
    with torch.inference_mode():
        expected = tower(small, interpolate_pos_encoding=True, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(found.features, expected[:, 1:])


def test_downsampling_counts_against_the_full_image(family, tools) -> None:
    pruner = build("downsample", {})
    batch = tools.prepare(family, pruner, 0.5, tools.MIXED[:1])
    _, trace = tools.forward(family, batch)
    assert batch.images[0].original == 16
    assert trace.per_layer[0] == [8] * 6


def test_other_ways_to_take_features_are_refused(family) -> None:
    config = type(family.model.config)(vision_feature_select_strategy="full")
    with pytest.raises(Unsupported, match="without CLS"):
        Llava.describe(config, "pad")


def test_sliding_windows_are_refused() -> None:
    text = {"model_type": "mistral", "sliding_window": 64, "num_hidden_layers": 2}
    with pytest.raises(Unsupported, match="sliding-window"):
        Llava.describe(LlavaConfig(text_config=text), "pad")


def test_a_prompt_begins_once(family) -> None:
    bos = family.tokenizer.bos_token
    assert family.token_ids(f"{bos}Why?") == family.token_ids("Why?")
    assert family.token_ids("Why?").count(family.tokenizer.bos_token_id) == 1
