import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from vtpbench.harness.models.dummy import (
    DUMMY,
    describe_dummy,
    dummy_names,
    filler,
    noise_picture,
    open_dummy,
    refuse_dummy,
)
from vtpbench.harness.models.family import Family
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.registry import build

CONFIGS = Path(__file__).parents[3] / "harness" / "models" / "configs"
PARAMETERS = {
    "llava-1.5-7b": 7_063_427_072,
    "llava-1.5-13b": 13_351_494_656,
    "llava-next-7b": 7_063_431_168,
    "llava-onevision-0.5b": 893_675_552,
    "llava-onevision-7b": 8_030_807_584,
    "qwen2-vl-2b": 2_208_985_600,
    "qwen2-vl-7b": 8_291_375_616,
    "qwen2.5-vl-3b": 3_754_622_976,
    "qwen2.5-vl-7b": 8_292_166_656,
    "qwen3-vl-2b": 2_127_532_032,
    "qwen3-vl-4b": 4_437_815_808,
    "qwen3-vl-8b": 8_767_123_696,
    "internvl3-2b": 2_088_957_440,
    "internvl3-8b": 7_944_373_760,
    "internvl3.5-8b": 8_528_318_464,
}
"""Of the published checkpoints."""
ONE_OF_EACH = ["llava-1.5-7b", "llava-next-7b", "qwen2-vl-2b", "qwen2.5-vl-3b", "qwen3-vl-2b", "internvl3-2b"]
SIDES = {"qwen3-vl-2b": 512}
"""Of a picture that has a multiple of 16 tokens, where that is not 112 pixels: smaller ones are enlarged."""
CPU = torch.device("cpu")
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}
CLIP = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "image_size": 56}
BLOCKS = {"depth": 4, "num_heads": 4}
TOWERS: dict[str, dict[str, Any]] = {
    "qwen2_vl": {**BLOCKS, "embed_dim": 32, "hidden_size": 64},
    "qwen2_5_vl": {
        **BLOCKS,
        "hidden_size": 32,
        "intermediate_size": 64,
        "fullatt_block_indexes": [1, 3],
        "out_hidden_size": 64,
    },
    "qwen3_vl": {
        **BLOCKS,
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": 64,
        "deepstack_visual_indexes": [0, 2],
    },
    "internvl": {**CLIP, "image_size": [112, 112]},
}
"""Small towers of the families that make a token of several patches, by `model_type`; others have `CLIP`."""


@pytest.fixture(scope="module")
def shrunk(tmp_path_factory: pytest.TempPathFactory):
    """Write a shipped configuration with small sizes, all else as it is, and give its path."""
    folder = tmp_path_factory.mktemp("configs")

    def write(name: str) -> str:
        config = json.loads((CONFIGS / f"{name}.json").read_text())
        config["text_config"].update(TEXT)
        if "head_dim" in config["text_config"]:
            config["text_config"]["head_dim"] = 16
        if "mrope_section" in config["text_config"].get("rope_parameters", {}):
            config["text_config"]["rope_parameters"]["mrope_section"] = [2, 3, 3]
        config["vision_config"].update(TOWERS.get(config["model_type"], CLIP))
        file = folder / f"{name}.json"
        file.write_text(json.dumps(config))
        return str(file)

    return write


def small(path: str, dtype: str = "float32", seed: int = 0, **options: Any) -> Family:
    return open_dummy(describe_dummy(path, dtype=dtype, **options), CPU, seed)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_model_is_built_at_full_size_in_its_number_format_and_nothing_of_it_on_the_host(name: str) -> None:
    family = open_dummy(describe_dummy(name, dtype="bfloat16"), torch.device("meta"))
    weights = list(family.model.parameters())
    assert sum(w.numel() for w in weights) == PARAMETERS[name]
    assert {w.dtype for w in weights} == {torch.bfloat16}
    assert {t.device.type for t in [*weights, *family.model.buffers()]} == {"meta"}


def test_all_shipped_configurations_are_described_without_building_them() -> None:
    described = {name: describe_dummy(name) for name in dummy_names()}
    assert {name: d.info.vision_tokens for name, d in described.items()} == {
        "llava-1.5-7b": 576,
        "llava-1.5-13b": 576,
        "llava-next-7b": 2880,
        "llava-onevision-0.5b": None,
        "llava-onevision-7b": None,
        "qwen2-vl-2b": None,
        "qwen2-vl-7b": None,
        "qwen2.5-vl-3b": None,
        "qwen2.5-vl-7b": None,
        "qwen3-vl-2b": None,
        "qwen3-vl-4b": None,
        "qwen3-vl-8b": None,
        "internvl3-2b": None,
        "internvl3-8b": None,
        "internvl3.5-8b": None,
    }
    assert {d.info.weights for d in described.values()} == {DUMMY}
    assert described["qwen2.5-vl-7b"].shape.full_attention == (7, 15, 23, 31)


@pytest.mark.parametrize("name", [*ONE_OF_EACH, "llava-onevision-0.5b"])
def test_computed_tables_are_those_of_a_model_made_in_the_ordinary_way(shrunk, name: str) -> None:
    dummy = small(shrunk(name), "bfloat16").model
    with torch.random.fork_rng(devices=[]):
        ordinary = AutoModelForImageTextToText.from_config(dummy.config, dtype=torch.float32)
    expected = dict(ordinary.named_buffers())
    found = dict(dummy.named_buffers())
    assert any(key.endswith("inv_freq") for key in expected)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key], value), key


def test_weights_follow_the_seed_and_leave_the_global_generator_alone(shrunk) -> None:
    path = shrunk("llava-1.5-7b")
    before = torch.get_rng_state()
    first, same, other = (small(path, seed=seed).model.state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


@pytest.mark.parametrize("name", ONE_OF_EACH)
@pytest.mark.parametrize(("pruner", "entered"), [("random", [12] * 4), ("fastv", [16, 16, 8, 8]), ("visionzip", [12] * 4)])
def test_a_pruned_dummy_prefills_and_decodes(shrunk, name: str, pruner: str, entered: list[int]) -> None:
    family, method = small(shrunk(name)), build(pruner, {})
    pipeline = Pipeline(family, method, lambda n: 12 * n // 16)
    side = SIDES.get(name, 112)
    encoded = pipeline.encode([noise_picture(side, side)])
    tiles = encoded[0].original // 16
    chosen = pipeline.select(encoded, ["0"])
    batch = pipeline.assemble([filler(family, 32)], [[chosen[0]]])
    assert batch.layout.width == 32 + len(chosen[0].index)
    calls = []
    handle = family.model.lm_head.register_forward_hook(lambda *_: calls.append(1))
    _, trace = pipeline.generate(batch, max_new_tokens=5)
    handle.remove()
    assert len(calls) == 5
    assert trace.per_layer[0] == [tiles * n for n in entered]


def test_nothing_ends_an_answer_early(shrunk) -> None:
    assert small(shrunk("qwen2.5-vl-3b")).model.generation_config.eos_token_id is None


def test_a_question_fills_the_prompt_up_to_a_length(shrunk) -> None:
    family = small(shrunk("llava-1.5-7b"))
    question = filler(family, 32)
    assert len(family.token_ids(family.render(question, 1))) == 32 + 1
    assert filler(family, 32) == question != filler(family, 32, seed=1)
    with pytest.raises(UserError, match="0 text tokens are too few; a prompt has at least 1"):
        filler(family, 0)


def test_a_dummy_is_refused_where_answers_are_scored() -> None:
    with pytest.raises(UserError, match=r"'llava-1.5-7b' has random weights .* `vtpbench profile`"):
        refuse_dummy(describe_dummy("llava-1.5-7b").info)
    checkpoint = describe_dummy("llava-1.5-7b").info.model_copy(update={"weights": "0123456789abcdef"})
    refuse_dummy(checkpoint)


def test_mistakes_name_the_fix(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"did you mean 'llava-1.5-7b'\?"):
        describe_dummy("llava-1.5-7B")
    with pytest.raises(UserError, match="no configuration 'zzz'") as far:
        describe_dummy("zzz")
    assert [str(far.value).count(name) for name in dummy_names()] == [1] * len(dummy_names())
    with pytest.raises(UserError, match=r"preprocessing 'fixed' is not one of this model's \(fixed672, native\)"):
        describe_dummy("llava-next-7b", preprocessing="fixed")
    other, broken = tmp_path / "other.json", tmp_path / "broken.json"
    other.write_text('{"model_type": "llama"}')
    broken.write_text("{")
    with pytest.raises(UserError, match="architecture llama is not supported"):
        describe_dummy(str(other))
    with pytest.raises(UserError, match="not valid JSON"):
        describe_dummy(str(broken))
