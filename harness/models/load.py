"""Find a checkpoint, say what it is, and load it with the family that knows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from vtpbench.harness.host.files import is_hub_id
from vtpbench.harness.host.json_text import BadJson, load_json
from vtpbench.harness.models.registry import entries
from vtpbench.harness.models.written_config import facts_of
from vtpbench.harness.records.record import Dtype, ModelInfo
from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    import torch

    from vtpbench.harness.models.family import Family
    from vtpbench.harness.models.lora_adapter import LoraAdapter
    from vtpbench.pruners.base import ModelShape, TextTowerSource


MOST_LAYERS = 10_000
MOST_TOKENS = 10**7
"""Of one image."""


@dataclass(frozen=True)
class Described:
    """A checkpoint that was found, not yet loaded.

    Attributes
    ----------
    info : what a record says of it
    shape : for pruners
    folder : where it is
    template : prompt template that replaces the checkpoint's, or None
    adapter : to be merged into the checkpoint, which is its base; or None

    """

    info: ModelInfo
    shape: ModelShape
    folder: Path
    template: str | None = None
    adapter: LoraAdapter | None = None


def find_checkpoint(path: str, revision: str | None, label: str) -> Path:
    """Folder of a checkpoint: a local folder, or a hub id, from the cache where it is there.

    Raises `UserError` where neither is to be had.
    """
    if Path(path).is_dir():
        return Path(path)
    if not is_hub_id(path):
        raise UserError(f"model '{label}': no checkpoint folder {path}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    from vtpbench.harness.host import hub

    wanted = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]
    offline = hub.offline_reason()

    def fetch(patterns: list[str]) -> Path:
        return Path(snapshot_download(path, revision=revision, allow_patterns=patterns, local_files_only=offline is not None))

    try:
        folder = fetch(wanted)
        return folder if any(folder.glob("*.safetensors")) else fetch([*wanted, "pytorch_model*.bin"])
    except LocalEntryNotFoundError as e:
        why = offline or hub.first_line(e.__cause__ or e)
        raise UserError(
            f"model '{label}': {path} is neither a folder nor in the Hugging Face cache, and the hub is out of reach "
            f"({why}); run `hf download {path}` on a machine with network and copy the cache, or give a folder"
        ) from e
    except (hub.transport_error(), HFValidationError) as e:
        raise UserError(f"model '{label}': {path} cannot be fetched from the hub: {str(e) or type(e).__name__}") from e


def describe_model(
    label: str,
    path: str,
    *,
    revision: str | None = None,
    dtype: str | None = None,
    attention: str = "sdpa",
    preprocessing: str | None = None,
    prompt: str | None = None,
    text_tower: str | None = None,
) -> Described:
    """Say what a checkpoint is, from its configuration and the hash of its files.

    `dtype` None is the one that the checkpoint names. `prompt` is `vicuna_v1` or a Jinja file; None takes the checkpoint's
    template. `text_tower` is the CLIP model that the vision tower comes from, a hub id or a folder; None takes the one that the
    family knows. Only some pruners need it, so that it is looked for on this machine alone. Raises `UserError` for a missing
    checkpoint or template, or an unsupported architecture. A folder with an adapter of peft stands for its base with the adapter
    merged in.
    """
    from vtpbench.harness.models.lora_adapter import read_adapter

    folder = find_checkpoint(path, revision, label)
    adapter = read_adapter(folder)
    if adapter is not None:
        folder = find_checkpoint(adapter.base, adapter.revision, f"{label} (base)")
    config = _read_config(folder, label)
    entry = entries()[_model_type(config, label)]
    family = entry.load()
    chosen = preprocessing or family.preprocessings[0]
    if chosen not in family.preprocessings:
        known = ", ".join(family.preprocessings)
        raise UserError(f"model '{label}': preprocessing '{chosen}' is not one of this model's ({known})")
    with _checkpoint_errors(folder, label):
        (shape, tokens), tower_of = facts_of(
            config, lambda: family.read_config(folder), lambda read: (family.describe(read, chosen), family.clip_model(read))
        )
        used_template = family.template(folder) if prompt is None else read_template(prompt, label)
        tower = family.tower(folder)
    if (tokens or 0) > MOST_TOKENS:
        raise UserError(f"model '{label}': {folder}/config.json says {tokens} vision tokens, more than any image has")
    info = ModelInfo(
        label=label,
        id=path,
        family=shape.family,
        weights=_weights(folder, label) if adapter is None else adapter.beside(_weights(folder, label)),
        tower=None if tower is None else _weights(tower, label),
        dtype=dtype or own_dtype(config, label),
        attention=attention,
        preprocessing=chosen,
        prompt=_prompt_name(used_template),
        vision_tokens=tokens,
        family_code=entry.code(),
    )
    # what lies beside the base belongs to its tower, not to one that the adapter changes
    beside = None if adapter is not None and adapter.changes_tower else str(folder)
    shape = replace(shape, folder=beside, text_tower=beside_vision_tower(shape, text_tower or tower_of, label))
    return Described(info, shape, folder, None if prompt is None else used_template, adapter)


def text_tower_of(folder: Path, label: str) -> str | None:
    """Name the CLIP model that a checkpoint's vision tower comes from, as its family knows it; None where it knows none."""
    config = _read_config(folder, label)
    family = entries()[_model_type(config, label)].load()
    with _checkpoint_errors(folder, label):
        return facts_of(config, lambda: family.read_config(folder), family.clip_model)


def beside_vision_tower(shape: ModelShape, name: str | None, label: str) -> TextTowerSource | None:
    """Look for the CLIP model of a vision tower; None where none is named, or the tower is not of CLIP's kind."""
    return None if name is None or not shape.has_cls else find_text_tower(name, label)


def find_text_tower(name: str, label: str) -> TextTowerSource:
    """Look for a CLIP model on this machine, a folder or in the Hugging Face cache; without weights where it is not.

    Raises `UserError` for a name that is neither a folder nor a hub id.
    """
    from vtpbench.harness.host import hub
    from vtpbench.pruners.base import TextTowerSource

    if not Path(name).is_dir() and not is_hub_id(name):
        raise UserError(
            f"model '{label}': text_tower {name}: no such folder; give that of a CLIP model, or a hub id (owner/name)"
        )
    folder = Path(name) if Path(name).is_dir() else hub.cached_model(name, None)
    if folder is None or not weight_files(folder):
        return TextTowerSource(name)
    return TextTowerSource(name, _weights(folder, label), str(folder))


def read_checkpoint_config(described: Described) -> Any:
    """Read the configuration of a checkpoint that was described, as transformers does."""
    label = described.info.label
    entry = entries()[_model_type(_read_config(described.folder, label), label)]
    return entry.load().read_config(described.folder)


def open_model(described: Described, device: torch.device) -> Family:
    """Load the checkpoint onto a device."""
    import torch

    from vtpbench.harness.models.lora_adapter import merge

    info = described.info
    family = entries()[_model_type(_read_config(described.folder, info.label), info.label)].load()
    dtype = getattr(torch, info.dtype)
    template = described.template or family.template(described.folder)
    loaded = family.load(described.folder, dtype, device, info.attention, info.preprocessing, template)
    if described.adapter is not None:
        merge(loaded.model, described.adapter)
    loaded.shape = replace(loaded.shape, folder=described.shape.folder)
    place_text_tower(loaded, described.shape.text_tower)
    if described.template is not None:
        verify_template(loaded, info.label)
    return loaded


def place_text_tower(family: Family, source: TextTowerSource | None) -> None:
    """Tell pruners of the text tower beside a model's vision tower; it is loaded when first something is asked of it."""
    from vtpbench.harness.models.text_tower import ClipTextTower

    family.shape = replace(family.shape, text_tower=source)
    if source is not None and source.folder is not None:
        family.open_text_tower = partial(ClipTextTower.load, Path(source.folder), family.shape.vision_width, family.device)


def own_dtype(config: Mapping[str, Any], label: str) -> str:
    """Read the number format that a configuration names, `dtype` or as it was once called `torch_dtype`; else float32.

    It holds on every device, a CPU too: a plan must name the same cells wherever it is made. Raises `UserError` for a format that
    no model is run in.
    """
    places = [place for place in (config, config.get("text_config")) if isinstance(place, Mapping)]
    named = [place[key] for place in places for key in ("dtype", "torch_dtype") if place.get(key)]
    found = str(named[0]).removeprefix("torch.") if named else "float32"
    if found not in get_args(Dtype):
        raise UserError(f"model '{label}': its config.json names the dtype {found:.100}; say in which to run it: dtype: float16")
    return found


def _read_config(folder: Path, label: str) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise UserError(f"model '{label}': {folder} has no config.json; give the folder of a Hugging Face checkpoint")
    try:
        config = load_json(file, finite=False)
    except BadJson as e:
        raise UserError(f"model '{label}': {file} is not valid JSON: {e}") from e
    if not isinstance(config, dict) or not isinstance(config.get("architectures") or [], list):
        raise UserError(f"model '{label}': {file} is not a configuration; fetch it anew")
    _refuse_depth(config, f"model '{label}': {file}")
    return config


def _model_type(config: dict[str, Any], label: str) -> str:
    from vtpbench.harness.models import original

    known = entries()
    found = original.model_type(config) if original.is_original(config) else config.get("model_type")
    if not isinstance(found, str) or found not in known:
        architecture = ", ".join(map(str, config.get("architectures") or [found]))[:200]
        raise UserError(f"model '{label}': architecture {architecture} is not supported; supported: {', '.join(sorted(known))}")
    return found


def _refuse_depth(config: Any, name: str) -> None:
    """Refuse more layers than any model has, of which transformers would make lists; raises `UserError`."""
    inner = [(key, value) for key, value in config.items()]
    while inner:
        key, value = inner.pop()
        if isinstance(value, dict):
            inner += value.items()
        elif isinstance(value, (int, float)) and ("layers" in key or "depth" in key) and not abs(value) <= MOST_LAYERS:
            raise UserError(f"{name} says {key} {value:.3g}, more than any model has")


@contextmanager
def _checkpoint_errors(folder: Path, label: str) -> Iterator[None]:
    """Say in one line that the files of a checkpoint are not what transformers takes them for."""
    try:
        yield
    except UserError:
        raise
    except Exception as e:  # whatever comes up where a value is of another type, missing, or none of those that are known
        said = (str(e).strip().splitlines() or ["nothing more is known"])[0]
        raise UserError(f"model '{label}': {folder} cannot be used as a checkpoint: {type(e).__name__}: {said:.300}") from e


def weight_files(folder: Path) -> list[Path]:
    """Files that hold a checkpoint's weights: safetensors, or else pickles."""
    return sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def _weights(folder: Path, label: str) -> str:
    """Hash of the model's own files, wherever they lie; for a hub snapshot its revision, which names the same bytes.

    Beside the weights, the small files count: configuration, tokenizer, image processor, prompt template, end of answers.
    """
    if folder.parent.name == "snapshots":
        return folder.name
    files = weight_files(folder)
    if not files:
        raise UserError(f"model '{label}': {folder} holds no weights, neither model*.safetensors nor pytorch_model*.bin")
    small = [file for pattern in ("*.json", "*.jinja", "*.model", "*.txt") for file in folder.glob(pattern) if file.is_file()]
    digest = sha256()
    for file in sorted({*files, *small}, key=lambda file: file.name):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()[:16]


def read_template(prompt: str, label: str) -> str:
    """Find a prompt template by its name or file."""
    from vtpbench.harness.models.llava import VICUNA_V1

    if prompt == "vicuna_v1":
        return VICUNA_V1
    try:
        return Path(prompt).read_text(encoding="utf-8")
    except (OSError, ValueError) as e:
        raise UserError(f"model '{label}': prompt {prompt} is neither vicuna_v1 nor a Jinja file that can be read: {e}") from e


def verify_template(family: Family, label: str) -> None:
    """Raise `UserError` where a model has a prompt template that is wrong or made for another model."""
    from jinja2 import TemplateError

    try:
        images = family.token_ids(family.render("Why?", 2)).count(family.image_id)
    except TemplateError as e:
        raise UserError(f"model '{label}': the prompt template is wrong: {e}") from e
    if images != 2:
        raise UserError(f"model '{label}': the prompt template gives {images} image tokens for 2 images; not for this model")


def _prompt_name(template: str) -> str:
    """Name a prompt template in records: `vicuna_v1`, or the hash of its text."""
    from vtpbench.harness.models.llava import VICUNA_V1

    return "vicuna_v1" if template == VICUNA_V1 else sha256(template.encode()).hexdigest()[:16]
