"""Models of full size with random weights: for speed, memory and counts, which do not depend on the weights.

A dummy is an ordinary `Family`. Its configuration comes with vtpbench, its weights are drawn on the device, its image
processor is that of the family with published settings, and its tokenizer knows bytes, so that nothing is downloaded.
Its answers mean nothing: it never ends an answer early, and it is refused wherever answers are scored.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtpbench.harness.host.json_text import BadJson, load_json
from vtpbench.harness.models.load import Described, own_dtype
from vtpbench.harness.models.memory import require_room
from vtpbench.harness.models.registry import ORIGINAL, entries
from vtpbench.harness.models.written_config import facts_of
from vtpbench.harness.records.record import DUMMY, ModelInfo
from vtpbench.pruners.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from vtpbench.harness.models.family import Family
    from vtpbench.harness.models.text_tower import ClipTextTower

TEMPLATE = (
    "{% for m in messages if m.role == 'user' %}{% for c in m.content %}"
    "{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %}{% endfor %}{% endfor %}"
)
"""The images, then the question; the tokenizer puts one token in front. No other text, so that any short length can be had."""

PUBLISHED = {
    "llava-hf/llava-1.5-7b-hf": "llava-1.5-7b",
    "llava-hf/llava-1.5-13b-hf": "llava-1.5-13b",
    "llava-hf/llava-v1.6-vicuna-7b-hf": "llava-next-7b",
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": "llava-onevision-0.5b",
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": "llava-onevision-7b",
    "Qwen/Qwen2-VL-2B-Instruct": "qwen2-vl-2b",
    "Qwen/Qwen2-VL-7B-Instruct": "qwen2-vl-7b",
    "Qwen/Qwen2.5-VL-3B-Instruct": "qwen2.5-vl-3b",
    "Qwen/Qwen2.5-VL-7B-Instruct": "qwen2.5-vl-7b",
    "Qwen/Qwen3-VL-2B-Instruct": "qwen3-vl-2b",
    "Qwen/Qwen3-VL-4B-Instruct": "qwen3-vl-4b",
    "Qwen/Qwen3-VL-8B-Instruct": "qwen3-vl-8b",
    "OpenGVLab/InternVL3-2B-hf": "internvl3-2b",
    "OpenGVLab/InternVL3-8B-hf": "internvl3-8b",
    "OpenGVLab/InternVL3_5-8B-HF": "internvl3.5-8b",
}
"""Checkpoints whose configurations come with vtpbench, by their hub ids."""

_TEXT_TOWERS: dict[str, dict[str, Any]] = {
    "openai/clip-vit-large-patch14-336": {
        "text_config": {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "vocab_size": 49408,
        },
        "projection_dim": 768,
    }
}
"""Sizes of the text towers beside vision towers that families name."""


def dummy_names() -> tuple[str, ...]:
    """Models whose configurations come with vtpbench."""
    return tuple(sorted(file.stem for file in _shipped().glob("*.json")))


def describe_dummy(
    name: str, *, dtype: str | None = None, attention: str = "sdpa", preprocessing: str | None = None
) -> Described:
    """Say what a dummy will be; without a dtype that of its configuration, as for a checkpoint.

    `name` is one of `dummy_names()`, or the path of a `config.json` in transformers' form. Raises `UserError` for another
    name, an unsupported architecture or an unknown preprocessing.
    """
    from vtpbench.pruners.base import TextTowerSource

    file = _config_file(name)
    kind, values = _values(file)
    entry = entries()[kind]
    family = entry.load()
    chosen = preprocessing or family.preprocessings[0]
    if chosen not in family.preprocessings:
        known = ", ".join(family.preprocessings)
        raise UserError(f"model '{name}': preprocessing '{chosen}' is not one of this model's ({known})")
    (shape, tokens), clip = facts_of(
        values, lambda: read_configuration(file), lambda read: (family.describe(read, chosen), family.clip_model(read))
    )
    info = ModelInfo(
        label=name,
        id=name,
        family=shape.family,
        weights=DUMMY,
        dtype=dtype or own_dtype(values, name),
        attention=attention,
        preprocessing=chosen,
        prompt=DUMMY,
        vision_tokens=tokens,
        family_code=entry.code(),
    )
    if clip in _TEXT_TOWERS:
        shape = replace(shape, text_tower=TextTowerSource(clip, DUMMY))
    return Described(info, shape, file)


def open_dummy(described: Described, device: torch.device, seed: int = 0) -> Family:
    """Build a dummy on a device, in its number format from the start; raises `UserError` where that has no room for it."""
    import torch

    from vtpbench.harness.models.tiny import byte_tokenizer

    info, config, tokenizer = described.info, read_configuration(described.folder), byte_tokenizer()
    config.image_token_id = tokenizer.convert_tokens_to_ids("<image>")
    if device.type != "meta":
        require_room(info.label, config, info.dtype, device)
    model = _random_model(config, getattr(torch, info.dtype), device, info.attention, seed)
    kind = entries()[config.model_type].load()
    family = kind(model, tokenizer, kind.published_processor(config), TEMPLATE, info.preprocessing)
    source = described.shape.text_tower
    if source is not None:
        family.shape = replace(family.shape, text_tower=source)
        family.open_text_tower = partial(_random_text_tower, source.name, family.shape.vision_width, device, seed)
    return family


def refuse_dummy(info: ModelInfo) -> None:
    """Raise `UserError` for a dummy; to be called wherever answers are about to be scored."""
    if info.weights == DUMMY:
        raise UserError(
            f"model '{info.label}' has random weights (`path: dummy:...`), its scores would mean nothing; "
            "measure its speed with `vtpbench profile`, or give a checkpoint"
        )


def filler(family: Family, text_tokens: int, images: int = 1, seed: int = 0) -> str:
    """Write a question of random letters with which a dummy's prompt has this many text tokens, vision tokens not counted.

    Raises `UserError` where the prompt around the question is longer.
    """
    around = len(family.token_ids(family.render("", images))) - images
    if text_tokens < around:
        raise UserError(f"{text_tokens} text tokens are too few; a prompt has at least {around}")
    letters = random.Random(seed).choices("abcdefghijklmnopqrstuvwxyz", k=text_tokens - around)
    return "".join(letters)


def noise_picture(width: int, height: int, seed: int = 0) -> Image:
    """Draw a picture of random colours."""
    from PIL import Image as Pillow

    return Pillow.frombytes("RGB", (width, height), random.Random(seed).randbytes(3 * width * height))


def _shipped() -> Path:
    from vtpbench.harness.models import configs

    return Path(str(configs.__file__)).parent


def _config_file(name: str) -> Path:
    file = Path(name) if name.endswith(".json") else _shipped() / f"{name}.json"
    if not file.is_file():
        raise UserError(
            f"no configuration '{name}' to draw random weights for, and no config.json of this path; "
            f"{did_you_mean(name, dummy_names())}"
        )
    return file


def _values(file: Path) -> tuple[str, dict[str, Any]]:
    """Read a configuration's architecture, and all that it says."""
    try:
        values = load_json(file, finite=False)
    except BadJson as e:
        raise UserError(f"{file} is not valid JSON: {e}") from e
    kind = values.get("model_type") if isinstance(values, dict) else None
    if not isinstance(kind, str) or kind not in entries() or kind in ORIGINAL:
        known = ", ".join(name for name in entries() if name not in ORIGINAL)
        raise UserError(f"{file}: architecture {kind!s:.200} is not supported with random weights; supported: {known}")
    return kind, values


def read_configuration(file: Path) -> Any:
    """Read a configuration as transformers does; raises `UserError` for one that no random weights can be drawn for."""
    from transformers import AutoConfig

    kind, values = _values(file)
    return AutoConfig.for_model(kind, **{key: value for key, value in values.items() if key != "model_type"})


def _random_model(config: Any, dtype: torch.dtype, device: torch.device, attention: str, seed: int) -> Any:
    """Draw the weights as transformers initialises them; the same seed gives the same on the same kind of device.

    Every tensor is made where it stays: with an empty model (`meta`) that is moved later, tables that are computed and not
    loaded, such as rotary frequencies, would be lost.
    """
    import torch
    from transformers import AutoModelForImageTextToText, GenerationConfig

    drawing = [device] if device.type not in ("cpu", "meta") else []  # the host's generator is always saved
    with torch.random.fork_rng(devices=drawing, device_type=device.type if drawing else "cuda"), device:
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation=attention)
    model.generation_config = GenerationConfig()  # no token ends an answer
    return model.eval().requires_grad_(False)


def _random_text_tower(name: str, width: int, device: torch.device, seed: int) -> ClipTextTower:
    """Draw a text tower of published sizes, and the way of vision features of some width to it."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    from vtpbench.harness.models.text_tower import ClipTextTower
    from vtpbench.harness.models.tiny import clip_tokenizer

    sizes, tokenizer = _TEXT_TOWERS[name], clip_tokenizer()
    ends = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {"hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": 1}  # of which the last norm alone is used
    text = {**sizes["text_config"], **ends}
    with torch.random.fork_rng(devices=[]), torch.device("meta" if device.type == "meta" else "cpu"):
        torch.manual_seed(seed)
        clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=sizes["projection_dim"]))
    return ClipTextTower(clip.eval().requires_grad_(False), tokenizer, device)
