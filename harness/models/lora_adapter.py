"""Checkpoints that are an adapter as peft saves it: LoRA weights for another checkpoint, merged into that as it is loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from vtpbench.harness.host.json_text import BadJson, load_json
from vtpbench.pruners.errors import UserError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ORIGINAL = "non_lora_trainables.bin"
"""What the training code of the original LLaVA writes beside an adapter, whose names of layers are its own."""
PLACES = ("base_model_name_or_path", "revision")
"""Where the base is, in the adapter's configuration: this may differ between machines, and changes no weight."""


@dataclass(frozen=True)
class LoraAdapter:
    """An adapter that was found.

    Attributes
    ----------
    folder : where it is
    base : the checkpoint that it was trained on, a folder or a hub id
    revision : of the base on the hub; None = its default branch
    weights : hash of its weights and options, 16 hexadecimal digits
    changes_tower : whether it changes the vision tower

    """

    folder: Path
    base: str
    revision: str | None
    weights: str
    changes_tower: bool

    def beside(self, base: str) -> str:
        """Hash that names the merged weights, from the base's."""
        return sha256(f"{base}\0{self.weights}".encode()).hexdigest()[:16]


def base_of(folder: Path) -> tuple[str, str | None] | None:
    """Say on which checkpoint the adapter of a folder was trained, and which revision of it; None where the folder has none.

    The base is a folder, also one named from the adapter's, or a hub id. Raises `UserError` for a configuration that names none.
    """
    file = folder / CONFIG
    if not file.is_file():
        return None
    config = _read(file)
    base, revision = (config.get(place) for place in PLACES)
    if not isinstance(base, str) or not base:
        raise UserError(f"{file} names no base_model_name_or_path; write there the folder or hub id of the adapter's base")
    return str(folder / base) if (folder / base).is_dir() else base, revision if isinstance(revision, str) else None


def read_adapter(folder: Path) -> LoraAdapter | None:
    """Find the adapter of a folder, if it holds one.

    Raises
    ------
    UserError : it is no LoRA, in the layout of the original LLaVA, incomplete, or lies beside a whole model

    """
    found = base_of(folder)
    if found is None:
        return None
    config = _read(folder / CONFIG)
    if any(folder.glob("model*.safetensors")) or any(folder.glob("pytorch_model*.bin")):
        raise UserError(f"{folder} holds both an adapter and the weights of a model; put each into a folder of its own")
    if (folder / ORIGINAL).is_file():
        raise UserError(f"{folder} is an adapter in the original LLaVA's layout; merge it with LLaVA's merge_lora_weights.py")
    if config.get("peft_type") != "LORA":
        raise UserError(f"{folder} is an adapter of type {config.get('peft_type')!s:.40}; only LORA can be merged into its base")
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} has no {WEIGHTS}; save the adapter with peft's save_pretrained")
    options = {key: value for key, value in config.items() if key not in PLACES}
    digest = sha256(json.dumps(options, sort_keys=True).encode() + (folder / WEIGHTS).read_bytes()).hexdigest()
    return LoraAdapter(folder, *found, digest[:16], any("vision_tower" in name or "visual." in name for name in _names(folder)))


def merge(model: Any, adapter: LoraAdapter) -> None:
    """Add an adapter to the weights of a model, in place, in the model's number format.

    Raises
    ------
    UserError : it does not fit: layers that the model lacks, other sizes, weights that are missing or not finite

    """
    from peft import LoraConfig, PeftModel

    from vtpbench.harness.models.pretrained import read_pretrained

    try:
        wrapped = PeftModel(model, read_pretrained(LoraConfig, str(adapter.folder)))
        loaded = wrapped.load_adapter(str(adapter.folder), "default", torch_device=str(model.device))
        strange = [*loaded.missing_keys, *loaded.unexpected_keys]
        if strange:
            raise UserError(f"{adapter.folder} does not fit its base {adapter.base}: {strange[0]} has no counterpart")
        wrapped.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, TypeError, KeyError) as e:  # what peft raises depends on what does not fit
        raise UserError(f"{adapter.folder} does not fit its base {adapter.base}: {str(e).strip().splitlines()[0]:.300}") from e


def _read(file: Path) -> dict[str, Any]:
    try:
        config = load_json(file, finite=False)
    except BadJson as e:
        raise UserError(f"{file} is not valid JSON: {e}") from e
    if not isinstance(config, dict):
        raise UserError(f"{file} is not the configuration of an adapter; save it anew")
    return config


def _names(folder: Path) -> list[str]:
    """Names of an adapter's weights."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / WEIGHTS, "numpy") as file:
            return list(file.keys())
    except SafetensorError as e:
        raise UserError(f"{folder / WEIGHTS} cannot be read: {e}") from e
