"""Find a checkpoint, say what it is, and load it with the family that knows it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtpbench.harness.record import ModelInfo
from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    import torch

    from vtpbench.harness.models.family import Family
    from vtpbench.pruners.base import ModelShape

@dataclass(frozen=True)
class Described:
    """A checkpoint that was found, not yet loaded: what a record says of it, its shape, and its folder."""

    info: ModelInfo
    shape: ModelShape
    folder: Path


def families() -> dict[str, type[Family]]:
    """Give the family of each transformers `model_type`, and of the original layouts that have none of their own."""
    from vtpbench.harness.models.llava import Llava
    from vtpbench.harness.models.llava_next import LlavaNext
    from vtpbench.harness.models.original import OriginalLlava, OriginalLlavaNext
    from vtpbench.harness.models.qwen2_5_vl import Qwen25VL

    return {
        "llava": Llava,
        "llava_next": LlavaNext,
        "qwen2_5_vl": Qwen25VL,
        "original_llava": OriginalLlava,
        "original_llava_next": OriginalLlavaNext,
    }


def find_checkpoint(path: str, revision: str | None, label: str) -> Path:
    """Folder of a checkpoint: a local folder, or a hub id, from the cache where it is there.

    Raises `UserError` where neither is to be had.
    """
    if Path(path).is_dir():
        return Path(path)
    if path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise UserError(f"model '{label}': no checkpoint folder {path}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    from vtpbench.harness import hub

    wanted = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]
    offline = hub.offline_reason()

    def fetch(patterns: list[str]) -> Path:
        return Path(snapshot_download(path, revision=revision, allow_patterns=patterns, local_files_only=offline is not None))

    try:
        folder = fetch(wanted)
        return folder if any(folder.glob("*.safetensors")) else fetch([*wanted, "pytorch_model*.bin"])
    except LocalEntryNotFoundError as e:
        raise UserError(
            f"model '{label}': {path} is neither a folder nor in the Hugging Face cache, and the hub is out of reach "
            f"({offline}); run `hf download {path}` on a machine with network and copy the cache, or give a folder"
        ) from e
    except (HfHubHTTPError, HFValidationError) as e:
        raise UserError(f"model '{label}': {path} cannot be fetched from the hub: {e}") from e


def describe_model(
    label: str,
    path: str,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    attention: str = "sdpa",
    preprocessing: str | None = None,
) -> Described:
    """Say what a checkpoint is, from its configuration and the hash of its weights.

    Raises `UserError` for a missing checkpoint or an unsupported architecture.
    """
    folder = find_checkpoint(path, revision, label)
    family = families()[_model_type(folder, label)]
    chosen = preprocessing or family.preprocessings[0]
    if chosen not in family.preprocessings:
        known = ", ".join(family.preprocessings)
        raise UserError(f"model '{label}': preprocessing '{chosen}' is not one of this model's ({known})")
    shape, tokens = family.describe(family.read_config(folder), chosen)
    info = ModelInfo(
        label=label,
        id=path,
        family=shape.family,
        weights="+".join(_weights(part, label) for part in family.parts(folder)),
        dtype=dtype,
        attention=attention,
        preprocessing=chosen,
        prompt=_prompt(folder),
        vision_tokens=tokens,
    )
    return Described(info, replace(shape, folder=str(folder)), folder)


def open_model(described: Described, device: torch.device) -> Family:
    """Load the checkpoint onto a device."""
    import torch

    info = described.info
    family = families()[_model_type(described.folder, info.label)]
    dtype = getattr(torch, info.dtype)
    loaded = family.load(described.folder, dtype, device, info.attention, info.preprocessing)
    loaded.shape = replace(loaded.shape, folder=described.shape.folder)
    return loaded


def _model_type(folder: Path, label: str) -> str:
    from vtpbench.harness.models import original

    file = folder / "config.json"
    if not file.is_file():
        raise UserError(f"model '{label}': {folder} has no config.json; give the folder of a Hugging Face checkpoint")
    try:
        config: dict[str, Any] = json.loads(file.read_text())
    except json.JSONDecodeError as e:
        raise UserError(f"model '{label}': {file} is not valid JSON: {e}") from e
    known = families()
    found = original.model_type(config) if original.is_original(config) else config.get("model_type")
    if found not in known:
        architecture = ", ".join(config.get("architectures") or [str(found)])
        raise UserError(f"model '{label}': architecture {architecture} is not supported; supported: {', '.join(sorted(known))}")
    return str(found)


def _weights(folder: Path, label: str) -> str:
    """Hash of the model's own weight files; for a hub snapshot its revision, which names the same bytes."""
    if folder.parent.name == "snapshots":
        return folder.name
    files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise UserError(f"model '{label}': {folder} holds no weights, neither model*.safetensors nor pytorch_model*.bin")
    digest = sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()[:16]


def _prompt(folder: Path) -> str:
    """Hash of the chat template, or `vicuna_v1` where the checkpoint brings none."""
    for name in ("chat_template.jinja", "chat_template.json"):
        if (folder / name).is_file():
            return sha256((folder / name).read_bytes()).hexdigest()[:16]
    file = folder / "tokenizer_config.json"
    template = json.loads(file.read_text()).get("chat_template") if file.is_file() else None
    return sha256(json.dumps(template).encode()).hexdigest()[:16] if template else "vicuna_v1"
