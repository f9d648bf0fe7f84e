"""Checkpoints in the original layout, against the original code where it is installed."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from vtpbench.harness.models.load import describe_model, open_model
from vtpbench.harness.models.original import IMAGE_ID
from vtpbench.harness.models.tiny import tiny_llava, tiny_llava_next
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.pruners.errors import Unsupported, UserError
from vtpbench.pruners.registry import build

VANILLA = build("vanilla", {})


def write(folder: Path, tiny, extra: dict, with_tower: bool) -> Path:
    """Write a tiny model as the original code would."""
    tower = folder / "tower"
    tiny.model.model.vision_tower.save_pretrained(tower)
    clip = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}, "image_processor_type": "CLIPImageProcessor"}
    (tower / "preprocessor_config.json").write_text(json.dumps(clip))
    weights = {}
    for name, value in tiny.model.state_dict().items():
        new = name.replace("model.language_model.", "model.")
        for number in (1, 2):
            new = new.replace(f"multi_modal_projector.linear_{number}", f"mm_projector.{2 * number - 2}")
        new = new.replace("model.vision_tower.", "model.vision_tower.vision_tower.vision_model.")
        if with_tower or "vision_tower" not in new:
            weights[new] = value.clone()
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    torch.save(weights, folder / "pytorch_model.bin")
    text = {k: v for k, v in tiny.model.config.text_config.to_dict().items() if k not in ("model_type", "rope_parameters")}
    config = {
        **text,
        "rope_theta": 10000.0,
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava",
        "image_aspect_ratio": "pad",
        "mm_vision_tower": str(tower),
        "mm_hidden_size": 32,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_use_im_start_end": False,
        **extra,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tiny.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("original"), tiny_llava(), {}, with_tower=False)


@pytest.fixture(scope="module")
def next_checkpoint(tmp_path_factory) -> Path:
    tiny = tiny_llava_next()
    pinpoints = [[width, height] for height, width in tiny.model.config.image_grid_pinpoints]
    extra = {"image_aspect_ratio": "anyres", "mm_patch_merge_type": "spatial_unpad", "image_grid_pinpoints": pinpoints}
    return write(tmp_path_factory.mktemp("original-next"), tiny, extra, with_tower=True)


def load(folder: Path, preprocessing: str | None = None):
    return open_model(describe_model("tiny", str(folder), preprocessing=preprocessing), torch.device("cpu"))


def test_it_is_described(checkpoint, next_checkpoint) -> None:
    found = describe_model("tiny", str(checkpoint)).info
    assert (found.family, found.preprocessing, found.prompt, found.vision_tokens) == ("llava", "pad", "vicuna_v1", 16)
    assert found.tower not in (None, found.weights)
    found = describe_model("tiny", str(next_checkpoint)).info
    assert (found.family, found.preprocessing, found.vision_tokens) == ("llava_next", "fixed672", 80)


@pytest.mark.parametrize("kind", ["checkpoint", "next_checkpoint"])
def test_it_is_the_model_in_hugging_face_form(kind, request, tools) -> None:
    loaded = load(request.getfixturevalue(kind))
    same = (tiny_llava if kind == "checkpoint" else tiny_llava_next)()
    for name, value in same.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value), name
    logits = [tools.forward(m, tools.prepare(m, VANILLA, None, tools.MIXED))[0] for m in (loaded, same)]
    assert torch.equal(*logits)


def test_text_around_images_is_tokenized_piece_by_piece(checkpoint) -> None:
    family = load(checkpoint)
    ids = family.token_ids("USER: <image>\n<image>\nWhy?")
    assert [n for n, token in enumerate(ids) if token == IMAGE_ID] == [7, 9]
    assert ids.count(family.tokenizer.bos_token_id) == 1


def test_variants_that_would_be_loaded_wrongly_are_refused(checkpoint, tmp_path) -> None:
    variants = {"mm_projector_type": "linear", "model_type": "llava_mistral", "mm_vision_select_feature": "cls_patch"}
    for key, value in variants.items():
        config = {**json.loads((checkpoint / "config.json").read_text()), key: value}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(Unsupported, match=f"{key} '{value}'"):
            describe_model("tiny", str(tmp_path))


def test_a_missing_weight_is_named(checkpoint, tmp_path) -> None:
    for file in checkpoint.iterdir():
        if file.is_file() and file.suffix != ".bin":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = torch.load(checkpoint / "pytorch_model.bin", weights_only=True)
    del weights["model.mm_projector.2.bias"]
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"lacks weights: \S*linear_2.bias; fetch all its files"):
        load(tmp_path)


@pytest.fixture(scope="module")
def original():
    """Give the class of the original code."""
    model = pytest.importorskip("llava.model", reason="the original code is not installed: pip install --no-deps llava-torch")
    if not hasattr(model, "LlavaLlamaForCausalLM"):
        pytest.skip("llava.model cannot be imported beside this transformers")
    return model.LlavaLlamaForCausalLM


def reference(original, folder: Path, image: Image.Image):
    """Logits and greedy text of the original code, for the prompt of its own evaluation."""
    from llava.constants import IMAGE_TOKEN_INDEX
    from llava.conversation import conv_templates
    from llava.mm_utils import process_images, tokenizer_image_token
    from transformers import AutoTokenizer, CLIPImageProcessorPil

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = original.from_pretrained(folder, dtype=torch.float32).eval()
    tower = model.get_vision_tower()
    if not tower.is_loaded:
        tower.load_model()
    conversation = conv_templates["vicuna_v1"].copy()
    conversation.append_message(conversation.roles[0], "<image>\nWhat is it?")
    conversation.append_message(conversation.roles[1], None)
    ids = tokenizer_image_token(conversation.get_prompt(), tokenizer, IMAGE_TOKEN_INDEX, return_tensors="pt")[None]
    processor = CLIPImageProcessorPil.from_pretrained(tower.vision_tower_name)  # what its environment used
    pixels = process_images([image], processor, model.config)
    asked = ids.shape[1]
    with torch.inference_mode():
        logits = model(input_ids=ids, images=pixels, image_sizes=[image.size]).logits
        while ids.shape[1] < asked + 8 and ids[0, -1] != tokenizer.eos_token_id:  # its `generate` fails beside newer transformers
            last = model(input_ids=ids, images=pixels, image_sizes=[image.size]).logits[:, -1:]
            ids = torch.cat([ids, last.argmax(-1)], 1)
    return logits, tokenizer.batch_decode(ids[:, asked:], skip_special_tokens=True)


@pytest.mark.parametrize(("kind", "preprocessing"), [("checkpoint", "pad"), ("next_checkpoint", "native")])
def test_parity_with_the_original_code(kind, preprocessing, request, original, tools) -> None:
    folder = request.getfixturevalue(kind)
    image = tools.picture(40, 30)
    expected, text = reference(original, folder, image)
    family = load(folder, preprocessing)
    batch = tools.prepare(family, VANILLA, None, [("What is it?", [image])])
    logits, _ = tools.forward(family, batch)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)
    assert Pipeline(family).generate(batch, 8)[0] == text
