"""Checkpoints in the layout of the original LLaVA code, such as liuhaotian/llava-v1.5-7b: read as they are, never rewritten."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from vtpbench.harness.models.llava import VICUNA_V1, Llava
from vtpbench.harness.models.llava_next import LlavaNext
from vtpbench.harness.models.load import find_checkpoint, weight_files
from vtpbench.harness.models.pretrained import load_pretrained, read_pretrained
from vtpbench.harness.pruning.model import IMAGE_MARKER
from vtpbench.pruners.errors import Unsupported, UserError
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

IMAGE_ID = -200
"""Stands for an image among token ids; the vocabulary has no token for it."""
PREFIXES = {
    "model.embed_tokens.": "model.language_model.embed_tokens.",
    "model.layers.": "model.language_model.layers.",
    "model.norm.": "model.language_model.norm.",
    "model.mm_projector.0.": "model.multi_modal_projector.linear_1.",
    "model.mm_projector.2.": "model.multi_modal_projector.linear_2.",
    "model.vision_tower.vision_tower.vision_model.": "model.vision_tower.",
    "model.vision_tower.vision_tower.": "model.vision_tower.",
    "model.image_newline": "model.image_newline",
    "lm_head.": "lm_head.",
}
"""Where the weights go; the first prefix that fits."""
FOREIGN = ("mm_", "image_", "tune_", "freeze_", "unfreeze_", "use_mm_", "tokenizer_", "model_type", "architectures", "_name")
"""How those keys of a configuration begin that are not about the Llama."""
TOWER = "model.vision_tower."


def is_original(config: dict[str, Any]) -> bool:
    """Whether a `config.json` was written by the original code; transformers uses the same `model_type` for its own."""
    return "mm_vision_tower" in config or "LlavaLlamaForCausalLM" in (config.get("architectures") or ())


def model_type(config: dict[str, Any]) -> str:
    """Give the name under which `load.py` knows the family of an original checkpoint."""
    return "original_llava_next" if config.get("image_aspect_ratio") == "anyres" else "original_llava"


def tower_folder(folder: Path) -> Path:
    """Folder of the vision tower that a checkpoint names: a folder (from the checkpoint's, too) or a hub id."""
    name = str(read_json(folder)["mm_vision_tower"])
    return folder / name if (folder / name).is_dir() else find_checkpoint(name, None, f"vision tower of {folder.name}")


def read_json(folder: Path) -> dict[str, Any]:
    """Read the original `config.json`; raises `Unsupported` for a variant that would be loaded wrongly."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    wanted = {
        "model_type": ("llava", "llava_llama"),
        "mm_projector_type": ("mlp2x_gelu",),
        "mm_vision_select_feature": ("patch", None),
        "mm_use_im_start_end": (False, None),
    }
    for key, values in wanted.items():
        if config.get(key) not in values:
            raise Unsupported(f"{folder}: original LLaVA with {key} {config.get(key)!r} is not supported, only {values[0]!r}")
    return config


def convert_config(folder: Path) -> Any:
    """Say in transformers' words what an original configuration and its tower's say."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaNextConfig

    config = read_json(folder)
    text = LlamaConfig.from_dict({key: value for key, value in config.items() if not key.startswith(FOREIGN)})
    common = {
        "text_config": text,
        "vision_config": read_pretrained(CLIPVisionConfig, tower_folder(folder)),
        "image_token_index": IMAGE_ID,
        "vision_feature_layer": config["mm_vision_select_layer"],
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", False)),
    }
    if model_type(config) == "original_llava":
        return LlavaConfig(**common)
    # written (width, height) there, (height, width) here
    pinpoints = [[height, width] for width, height in config["image_grid_pinpoints"]]
    return LlavaNextConfig(**common, image_grid_pinpoints=pinpoints)


def convert_weights(folder: Path) -> dict[str, Tensor]:
    """Read the weights under transformers' names; the tower is that of the checkpoint, or the one that it names."""
    weights = {name: value for file in weight_files(folder) for name, value in _renamed(file)}
    if not any(name.startswith(TOWER) for name in weights):
        from transformers import CLIPVisionModel

        tower = read_pretrained(CLIPVisionModel, tower_folder(folder)).state_dict()
        weights |= {TOWER + name.removeprefix("vision_model."): value for name, value in tower.items()}
    return weights


def _renamed(file: Path) -> Iterator[tuple[str, Tensor]]:
    """Read a file's weights under their new names; rotary tables, which are computed, are left out."""
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        weights = load_file(file)
    else:
        weights = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    for name, value in weights.items():
        if name.endswith(("rotary_emb.inv_freq", "embeddings.position_ids")):
            continue
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
        if prefix is None:
            raise UserError(f"{file}: unknown weight {name}; only LLaVA with a Llama is supported in the original layout")
        yield PREFIXES[prefix] + name.removeprefix(prefix), value


class _Original(Llava):
    """What loading an original checkpoint has in common, whatever its family."""

    @classmethod
    def read_config(cls, folder: Path) -> Any:
        """Read the configuration of a checkpoint."""
        return convert_config(folder)

    @classmethod
    def tower(cls, folder: Path) -> Path:
        """Folder of the vision tower, which the checkpoint names."""
        return tower_folder(folder)

    @classmethod
    def template(cls, folder: Path) -> str:
        """Prompt that the original was trained with, whatever its tokenizer brings."""
        del folder
        return VICUNA_V1

    @classmethod
    def load(
        cls, path: Path, dtype: torch.dtype, device: torch.device, attention: str, preprocessing: str, template: str
    ) -> Llava:
        """Load a checkpoint; raises `UserError` where a weight is missing."""
        from transformers import AutoTokenizer

        parts = {"config": convert_config(path), "state_dict": convert_weights(path)}
        options = {"dtype": dtype, "attn_implementation": attention}
        model = load_pretrained(cls.model_class(), path, device, given=True, **parts, **options)
        tokenizer = read_pretrained(AutoTokenizer, path)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.unk_token
        return cls(model, tokenizer, cls.image_processor_of(tower_folder(path)), template, preprocessing)

    @staticmethod
    def image_processor_of(tower: Path) -> Any:
        """Build the image processor from that of the tower."""
        from transformers import AutoImageProcessor

        return read_pretrained(AutoImageProcessor, tower, backend="pil")

    def token_ids(self, prompt: str) -> list[int]:
        """Tokenize what is between the images each by itself, as the original does."""
        first, *others = map(super().token_ids, prompt.split(IMAGE_MARKER))
        ids = list(first)
        for other in others:
            begins = bool(other) and other[0] == self.tokenizer.bos_token_id
            ids += [IMAGE_ID, *other[int(begins) :]]
        return ids


class OriginalLlava(_Original):
    """LLaVA-1.5 as its authors publish it."""

    name: ClassVar[str] = "llava"


class OriginalLlavaNext(_Original, LlavaNext):
    """LLaVA-1.6 (NeXT) with Vicuna, as its authors publish it."""

    name: ClassVar[str] = "llava_next"

    @staticmethod
    def image_processor_of(tower: Path) -> Any:
        """Build the tiling processor with the tower's size and colours."""
        from transformers import AutoImageProcessor, LlavaNextImageProcessorPil

        clip = read_pretrained(AutoImageProcessor, tower, backend="pil")
        return LlavaNextImageProcessorPil(
            size=dict(clip.size), crop_size=dict(clip.crop_size), image_mean=clip.image_mean, image_std=clip.image_std
        )
