import json
from pathlib import Path

import pytest
import torch

from vtpbench.harness.models.load import describe_model, open_model
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.registry import build

VANILLA = build("vanilla", {})


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, tiny, tiny_checkpoint) -> dict[str, Path]:
    """Tiny models as transformers saves them."""
    from transformers import LlavaNextProcessor

    folders = {name: tmp_path_factory.mktemp(name) for name in ("llava_next", "qwen2_5_vl")}
    for name, folder in folders.items():
        tiny(name).model.save_pretrained(folder)
    model = tiny("llava_next")
    LlavaNextProcessor(
        image_processor=model.image_processor,
        tokenizer=model.tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=model.chat_template,
    ).save_pretrained(folders["llava_next"])
    model = tiny("qwen2_5_vl")
    model.image_processor.save_pretrained(folders["qwen2_5_vl"])
    model.tokenizer.save_pretrained(folders["qwen2_5_vl"])
    (folders["qwen2_5_vl"] / "chat_template.json").write_text(json.dumps({"chat_template": model.chat_template}))
    return {"llava": tiny_checkpoint, **folders}


@pytest.mark.parametrize("name", ["llava", "llava_next", "qwen2_5_vl"])
def test_a_saved_model_is_the_same_model(name, checkpoints, tiny, tools) -> None:
    described = describe_model("tiny", str(checkpoints[name]))
    loaded, same = open_model(described, torch.device("cpu")), tiny(name)
    assert described.info.family == name
    assert (described.shape.vision_layers, described.shape.decoder_layers) == (4, 6)
    logits = [tools.forward(m, VANILLA, tools.prepare(m, VANILLA, None, tools.MIXED))[0] for m in (loaded, same)]
    assert torch.equal(*logits)


def test_preprocessing_is_the_familys_first_unless_another_is_asked_for(checkpoints) -> None:
    expected = {"llava": ("pad", 16), "llava_next": ("fixed672", 80), "qwen2_5_vl": ("dynamic", None)}
    for name, folder in checkpoints.items():
        info = describe_model("tiny", str(folder)).info
        assert (info.preprocessing, info.vision_tokens) == expected[name]
    assert describe_model("tiny", str(checkpoints["llava_next"]), preprocessing="native").info.vision_tokens is None
    with pytest.raises(UserError, match=r"'pad' is not one of this model's \(fixed672, native\)"):
        describe_model("tiny", str(checkpoints["llava_next"]), preprocessing="pad")


def test_a_qwen_without_a_chat_template_says_so(checkpoints, tmp_path) -> None:
    for file in checkpoints["qwen2_5_vl"].iterdir():
        if file.name != "chat_template.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="no chat template"):
        open_model(describe_model("tiny", str(tmp_path)), torch.device("cpu"))


@pytest.mark.parametrize("name", ["llava", "llava_next", "qwen2_5_vl"])
@pytest.mark.parametrize("pruner", ["vanilla", "fastv", "visionzip", "downsample"])
def test_half_precision_runs(name, pruner, tiny, tools) -> None:
    family, chosen = tiny(name, dtype=torch.bfloat16), build(pruner, {})
    batch = tools.prepare(family, chosen, None if pruner == "vanilla" else 0.5, tools.MIXED)
    logits, _ = tools.forward(family, chosen, batch)
    assert logits.dtype == torch.bfloat16
    assert logits[:, -1].isfinite().all()
