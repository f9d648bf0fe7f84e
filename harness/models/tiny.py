"""Tiny random models of every family: for the conformance check and the tests, built in a second, never downloaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch

from vtpbench.harness.models.family import Family
from vtpbench.harness.models.internvl import InternVL
from vtpbench.harness.models.llava import VICUNA_V1, Llava
from vtpbench.harness.models.llava_next import LlavaNext
from vtpbench.harness.models.llava_onevision import LlavaOnevision
from vtpbench.harness.models.qwen2_5_vl import Qwen25VL
from vtpbench.harness.models.qwen2_vl import Qwen2VL
from vtpbench.harness.models.qwen3_vl import Qwen3VL
from vtpbench.harness.models.text_tower import ClipTextTower
from vtpbench.pruners.base import TextTowerSource

_LLAVA = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
_QWEN = ["<unk>", "<s>", "<|im_end|>", "<pad>", "<|image_pad|>", "<|im_start|>", "<|vision_start|>", "<|vision_end|>"]
_INTERNVL = ["<unk>", "<s>", "<|im_end|>", "<pad>", "<IMG_CONTEXT>", "<|im_start|>", "<img>", "</img>"]
_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_ONEVISION = (
    "{% for m in messages %}<|im_start|>{{ m.role }} {% for c in m.content if c.type == 'image' %}<image>{% endfor %}"
    "{% for c in m.content if c.type == 'text' %}{{ '\n' + c.text }}{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
AnyFamily = TypeVar("AnyFamily", bound=Family)
PATCH = 4
"""Pixels along each side of a patch, in every family."""


def byte_tokenizer(special: Sequence[str] = _LLAVA) -> Any:
    """Tokenizer of single bytes with a model's special tokens: unknown, begin, end, padding, image first; encodes any text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: n for n, token in enumerate([*special, *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(special))
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token=special[2], pad_token="<pad>", padding_side="left"
    )


def tiny_llava(attention: str = "sdpa", dtype: torch.dtype = torch.float32, side: int = 4, seed: int = 0) -> Llava:
    """Build a random LLaVA: `side` x `side` vision tokens, 4 vision layers, 6 decoder layers, grouped-query heads."""
    from transformers import CLIPImageProcessorPil, LlavaConfig, LlavaForConditionalGeneration

    tokenizer, vision = byte_tokenizer(), _clip(side)
    config = LlavaConfig(vision_config=vision, text_config=_llama(len(tokenizer)), image_token_id=4, image_seq_length=side * side)
    model = random_model(LlavaForConditionalGeneration, config, attention, dtype, seed)
    return beside_text_tower(Llava(model, tokenizer, CLIPImageProcessorPil(**_sizes(side)), VICUNA_V1, "pad"))


def tiny_llava_next(
    attention: str = "sdpa",
    dtype: torch.dtype = torch.float32,
    side: int = 4,
    seed: int = 0,
    preprocessing: str = "fixed672",
) -> LlavaNext:
    """Build a random LLaVA-NeXT with the parts of `tiny_llava`; 5 tiles of `side` x `side` vision tokens."""
    from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration, LlavaNextImageProcessorPil

    tokenizer, pixels = byte_tokenizer(), side * PATCH
    pinpoints = [[pixels, 2 * pixels], [2 * pixels, pixels], [2 * pixels, 2 * pixels], [3 * pixels, pixels], [pixels, 3 * pixels]]
    config = LlavaNextConfig(
        vision_config=_clip(side), text_config=_llama(len(tokenizer)), image_token_index=4, image_grid_pinpoints=pinpoints
    )
    model = random_model(LlavaNextForConditionalGeneration, config, attention, dtype, seed)
    processor = LlavaNextImageProcessorPil(**_sizes(side), image_grid_pinpoints=pinpoints)
    return beside_text_tower(LlavaNext(model, tokenizer, processor, VICUNA_V1, preprocessing))


def tiny_llava_onevision(
    attention: str = "sdpa", dtype: torch.dtype = torch.float32, side: int = 4, seed: int = 0, most: int = 3
) -> LlavaOnevision:
    """Build a random LLaVA-OneVision: tiles of `side` x `side` tokens, pictures of at most about `most` of them."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        Qwen2Config,
        SiglipVisionConfig,
    )

    tokenizer, pixels = byte_tokenizer(["<unk>", "<s>", "<|im_end|>", "<pad>", "<image>", "<|im_start|>"]), side * PATCH
    pinpoints = [[pixels, 2 * pixels], [2 * pixels, pixels], [2 * pixels, 2 * pixels], [3 * pixels, pixels], [pixels, 3 * pixels]]
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    vision = SiglipVisionConfig(**sizes, image_size=pixels, patch_size=PATCH, vision_use_head=False)
    config = LlavaOnevisionConfig(
        vision_config=vision,
        text_config=Qwen2Config(vocab_size=len(tokenizer), **_SIZES, **_ENDS),
        image_token_index=4,
        image_grid_pinpoints=pinpoints,
        vision_aspect_ratio=f"anyres_max_{most}",
    )
    model = random_model(LlavaOnevisionForConditionalGeneration, config, attention, dtype, seed)
    return LlavaOnevision(model, tokenizer, LlavaOnevision.published_processor(config), _ONEVISION, "native")


def beside_text_tower(family: AnyFamily, layers: int = 2) -> AnyFamily:
    """Stand a random text tower beside a model's vision tower, made when it is first asked."""
    source = TextTowerSource("tiny", "tiny")
    family.shape = replace(family.shape, text_tower=source)
    family.open_text_tower = partial(_tiny_text_tower, family.shape.vision_width, layers, family)
    return family


def _tiny_text_tower(width: int, layers: int, family: Family) -> ClipTextTower:
    """Build a tower of 77 positions, 32 wide, and the way of vision features of some width into its space of 16."""
    return ClipTextTower(tiny_clip(width, layers), clip_tokenizer(), family.device)


def clip_tokenizer() -> Any:
    """Tokenizer of single bytes whose texts begin and end, and are filled up behind, as CLIP's."""
    from tokenizers import processors

    tokenizer = byte_tokenizer()
    ends = [("<s>", tokenizer.bos_token_id), ("</s>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return tokenizer


def tiny_clip(width: int = 32, layers: int = 2, seed: int = 0) -> Any:
    """Build a random CLIP whose vision tower is as wide as a model's."""
    from transformers import CLIPConfig, CLIPModel

    sizes = {"num_hidden_layers": layers, "num_attention_heads": 4}
    text = {**sizes, **_ENDS, "vocab_size": len(clip_tokenizer()), "hidden_size": 32, "intermediate_size": 64}
    vision = {**sizes, "num_hidden_layers": 1, "hidden_size": width, "intermediate_size": 16, "image_size": 16, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=16, initializer_factor=3.0)
    return random_model(CLIPModel, config, "sdpa", torch.float32, seed)


def tiny_qwen2_5_vl(attention: str = "sdpa", dtype: torch.dtype = torch.float32, side: int = 6, seed: int = 0) -> Qwen25VL:
    """Build a random Qwen2.5-VL: at most `side` x `side` vision tokens, windows of 2 x 2 of them, 4 blocks, 6 decoder layers."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tokenizer, unit = byte_tokenizer(_QWEN), 2 * PATCH
    vision = {
        "depth": 4,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 4,
        "patch_size": PATCH,
        "window_size": 2 * unit,
        "fullatt_block_indexes": [1, 3],
        "out_hidden_size": 32,
        "initializer_range": 0.2,
    }
    config = Qwen2_5_VLConfig(vision_config=vision, text_config=_qwen_text(len(tokenizer)), image_token_id=4, **_WRAPPERS)
    model = random_model(Qwen2_5_VLForConditionalGeneration, config, attention, dtype, seed)
    return Qwen25VL(model, tokenizer, _qwen_processor(side), _CHATML)


def tiny_qwen2_vl(
    attention: str = "sdpa",
    dtype: torch.dtype = torch.float32,
    side: int = 6,
    seed: int = 0,
    preprocessing: str = "dynamic",
    patch: int = PATCH,
) -> Qwen2VL:
    """Build a random Qwen2-VL with the parts of `tiny_qwen2_5_vl`, without windows."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    tokenizer = byte_tokenizer(_QWEN)
    vision = {
        "depth": 4,
        "embed_dim": 32,
        "hidden_size": 32,
        "mlp_ratio": 2,
        "num_heads": 4,
        "patch_size": patch,
        "initializer_range": 0.2,
    }
    config = Qwen2VLConfig(vision_config=vision, text_config=_qwen_text(len(tokenizer)), image_token_id=4, **_WRAPPERS)
    model = random_model(Qwen2VLForConditionalGeneration, config, attention, dtype, seed)
    return Qwen2VL(model, tokenizer, _qwen_processor(side, patch), _CHATML, preprocessing)


def tiny_qwen3_vl(
    attention: str = "sdpa",
    dtype: torch.dtype = torch.float32,
    side: int = 6,
    seed: int = 0,
    preprocessing: str = "dynamic",
    patch: int = PATCH,
    levels: Sequence[int] = (0, 1, 2),
) -> Qwen3VL:
    """Build a random Qwen3-VL with the parts of `tiny_qwen2_vl`; the blocks `levels` give what is added to decoder layers."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    tokenizer = byte_tokenizer(_QWEN)
    vision = {
        "depth": 4,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 4,
        "patch_size": patch,
        "out_hidden_size": 32,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": list(levels),
        "initializer_range": 0.2,
    }
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    text = {**_qwen_text(len(tokenizer)), "head_dim": 16, "rope_parameters": rope}  # heads are wider together than the model
    config = Qwen3VLConfig(vision_config=vision, text_config=text, image_token_id=4, **_WRAPPERS)
    model = random_model(Qwen3VLForConditionalGeneration, config, attention, dtype, seed)
    return Qwen3VL(model, tokenizer, _qwen_processor(side, patch), _CHATML, preprocessing)


def tiny_internvl(
    attention: str = "sdpa",
    dtype: torch.dtype = torch.float32,
    side: int = 2,
    seed: int = 0,
    preprocessing: str = "dynamic",
    tiles: tuple[int, int] = (4, 4),
    text: str = "qwen2",
    normed: bool = False,
) -> InternVL:
    """Build a random InternVL: from 4 to 4 `tiles` of `side` x `side` vision tokens, and where they are several a thumbnail.

    Its language model is of the kind `text`: `qwen2`, as in InternVL3, or `qwen3`, as in 3.5. `normed` puts norms behind the
    queries and keys of the tower, as in that of 6 billion parameters.
    """
    from transformers import GotOcr2ImageProcessorPil, InternVLConfig, InternVLForConditionalGeneration

    tokenizer, pixels = byte_tokenizer(_INTERNVL), 2 * PATCH * side
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "attention_bias": True,
        "use_qk_norm": normed,
        "image_size": [pixels, pixels],
        "patch_size": [PATCH, PATCH],
        "layer_scale_init_value": 0.5,
        "initializer_range": 0.2,
    }
    words = {**_SIZES, **_ENDS, "model_type": text, "vocab_size": len(tokenizer), "tie_word_embeddings": False}
    config = InternVLConfig(
        vision_config=vision,
        text_config=words if text == "qwen2" else {**words, "head_dim": 16},
        image_token_id=4,
        image_seq_length=side**2,
        tie_word_embeddings=False,
    )
    model = random_model(InternVLForConditionalGeneration, config, attention, dtype, seed)
    drawn = torch.Generator().manual_seed(seed)
    for parameter in (model.model.vision_tower.embeddings.position_embeddings, model.model.vision_tower.embeddings.cls_token):
        parameter.data.copy_(torch.randn(parameter.shape, generator=drawn))  # which transformers leaves at zero
    processor = GotOcr2ImageProcessorPil(size={"height": pixels, "width": pixels}, min_patches=tiles[0], max_patches=tiles[1])
    template = _CHATML.replace("<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>\n")
    return InternVL(model, tokenizer, processor, template, preprocessing)


TINY: dict[str, Callable[..., Family]] = {
    "llava": tiny_llava,
    "llava_next": tiny_llava_next,
    "llava_onevision": tiny_llava_onevision,
    "qwen2_vl": tiny_qwen2_vl,
    "qwen2_5_vl": tiny_qwen2_5_vl,
    "qwen3_vl": tiny_qwen3_vl,
    "internvl": tiny_internvl,
}
"""A random model of every built-in family."""

_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,
}
_WRAPPERS = {"vision_start_token_id": 6, "vision_end_token_id": 7}
_ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}


def _llama(vocabulary: int) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(vocab_size=vocabulary, **_SIZES, **_ENDS)


def _qwen_text(vocabulary: int) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    return {**_SIZES, **_ENDS, "vocab_size": vocabulary, "rope_parameters": rope}


def _qwen_processor(side: int, patch: int = PATCH) -> Any:
    """Image processor that leaves from 4 to `side` x `side` vision tokens."""
    from transformers import Qwen2VLImageProcessorPil

    unit = 2 * patch
    limits = {"shortest_edge": 4 * unit**2, "longest_edge": (side * unit) ** 2}
    return Qwen2VLImageProcessorPil(patch_size=patch, merge_size=2, size=limits)


def _clip(side: int) -> Any:
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=side * PATCH,
        patch_size=PATCH,
        initializer_factor=3.0,
    )


def _sizes(side: int) -> dict[str, Any]:
    pixels = side * PATCH
    return {"size": {"shortest_edge": pixels}, "crop_size": {"height": pixels, "width": pixels}}


def random_model(cls: Any, config: Any, attention: str, dtype: torch.dtype, seed: int) -> Any:
    """Build a model with random weights and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = cls(config)
    model.set_attn_implementation(attention)
    return model.to(dtype).eval()
