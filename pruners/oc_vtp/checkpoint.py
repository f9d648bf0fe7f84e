"""Checkpoints of OC-VTP: ours, safetensors with a header that says what they were trained for, and the published one."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zipfile import is_zipfile

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open

from vtpbench.pruners.errors import Unsupported, UserError
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.oc_vtp.dims import Dims

if TYPE_CHECKING:
    from torch import Tensor

    from vtpbench.pruners.oc_vtp.network import OCPruner

PRUNER_PARTS = ("encode_project.", "initializ.", "aggregat.")
METADATA_KEY = "vtpbench.oc_vtp"
PUBLISHED_ITERATIONS = 3


class Header(BaseModel):
    """What a checkpoint was trained for; None = unknown, as in the published file, and then not checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    model: str | None = None
    """Hub id or path of the model whose features were used."""
    tower: str | None = None
    """Hash of the vision tower's weights."""
    layer: int | None = None
    """Module index of the vision layer that gives the features."""
    geometry: str | None = None
    """How training images were made to fit: `squash`, `pad`, or `native`."""
    tokens: int | None = None
    """Vision tokens of every training image; None where they differed."""
    iterations: int = PUBLISHED_ITERATIONS
    """Rounds of slot attention."""
    slots: tuple[int, ...] = ()
    """Slot counts that were sampled in training."""
    data: str | None = None
    """Fingerprint of the training images and features."""
    images: int = 0
    step: int = 0
    """Optimiser steps behind these weights."""
    steps: int = 0
    """Optimiser steps of the whole run."""
    validation: dict[str, float] = {}
    """`loss` and `mse` on held-out images, of these weights and (`untrained_...`) of the first ones."""
    config: dict[str, Any] = {}
    """All options of the training."""
    versions: dict[str, str] = {}


@dataclass(frozen=True)
class Checkpoint:
    """A file that was found to hold weights; `shapes` are theirs, by name."""

    path: str
    header: Header
    shapes: Mapping[str, Sequence[int]]

    @cached_property
    def state(self) -> Mapping[str, Tensor]:
        """Weights of the pruner's part (a decoder is dropped), on the CPU, read when first asked for."""
        weights = _safetensors(self.path) if self.path.endswith(".safetensors") else _published(self.path)
        return {name: value.float() for name, value in weights.items() if name.startswith(PRUNER_PARTS)}

    @property
    def dims(self) -> Dims:
        """Widths of the network."""
        return Dims.of(self.shapes, self.header.iterations)

    def network(self) -> OCPruner:
        """Build the network, ready for inference; a missing or misshapen weight is an error, never left random."""
        from vtpbench.pruners.oc_vtp.network import OCPruner

        try:
            network = OCPruner(self.dims)
            network.load_state_dict(self.state, strict=True)
        except (KeyError, RuntimeError) as e:
            reason = " ".join(str(e).split())
            fix = "use another file, or train one with `vtpbench train oc-vtp`"
            raise UserError(f"{self.path} is no complete OC-VTP checkpoint: {reason}; {fix}") from e
        return network.requires_grad_(False).eval()

    def verify(
        self, *, width: int | None = None, layer: int | None = None, tokens: int | None = None, tower: str | None = None
    ) -> None:
        """Refuse to serve a model that the checkpoint was not trained for; what either side does not know is not checked.

        Raises
        ------
        Unsupported : naming what differs and the command that trains a fitting checkpoint

        """
        facts = {
            "vision width": (self.dims.features, width),
            "vision layer": (self.header.layer, layer),
            "vision tokens per image": (self.header.tokens, tokens),
            "vision tower": (self.header.tower, tower),
        }
        for name, (trained, here) in facts.items():
            if trained is not None and here is not None and trained != here:
                source = f" (trained on {self.header.model})" if self.header.model else ""
                raise Unsupported(
                    f"{self.path}{source} does not fit this model: {name} {trained} there, {here} here; "
                    "train one for this model: vtpbench train oc-vtp --model MODEL --images FOLDER"
                )


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint once per file content; the path is relative to the working directory."""
    return _load(*_identity(path))


def network_on(path: str | Path, device: torch.device) -> OCPruner:
    """Return the network of a checkpoint on a device, built once for each."""
    return _network_on(*_identity(path), device)


@lru_cache(maxsize=4)
def random_network(width: int, device: torch.device) -> OCPruner:
    """Build a network of the published widths, for features of this width, with random weights: as fast as a trained one."""
    from vtpbench.pruners.oc_vtp.network import OCPruner

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = OCPruner(Dims(features=width))
    return network.requires_grad_(False).eval().to(device)


def save(path: Path, state: Mapping[str, Tensor], header: Header, *, decoder: bool = False) -> None:
    """Write safetensors with the header, in one move; `decoder` keeps the training-only part too."""
    from safetensors.torch import save as serialise

    kept = {name: value.detach().cpu().contiguous() for name, value in state.items() if decoder or name.startswith(PRUNER_PARTS)}
    part = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(serialise(kept, metadata={METADATA_KEY: header.model_dump_json()}))  # `save_file` hides it from other users
    os.replace(part, path)


def content_hash(path: str | Path) -> str:
    """Hash the bytes of a checkpoint, 16 hexadecimal digits."""
    return _content_hash(*_identity(path))


def _identity(path: str | Path) -> tuple[str, int, int]:
    file = Path(path)
    if not file.is_file():
        raise UserError(f"no OC-VTP checkpoint at {file}; train one with `vtpbench train oc-vtp --model MODEL --images FOLDER`")
    stat = file.stat()
    return str(file.resolve()), stat.st_mtime_ns, stat.st_size  # a retrained file is read anew


@lru_cache(maxsize=8)
def _load(path: str, modified_ns: int, size: int) -> Checkpoint:
    del modified_ns, size
    if path.endswith(".safetensors"):
        return _described(path)
    shapes = {name: tuple(value.shape) for name, value in _published(path).items()}
    return Checkpoint(path, _published_header(shapes), shapes)


@lru_cache(maxsize=64)
def _content_hash(path: str, modified_ns: int, size: int) -> str:
    del modified_ns, size
    return sha256(Path(path).read_bytes()).hexdigest()[:16]


@lru_cache(maxsize=4)
def _network_on(path: str, modified_ns: int, size: int, device: torch.device) -> OCPruner:
    return _load(path, modified_ns, size).network().to(device)


def _described(path: str) -> Checkpoint:
    """Read what a safetensors file says of its weights, and none of them."""
    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - has only keys()
    except SafetensorError as e:
        raise UserError(f"{path} is no readable safetensors file: {e}") from e
    if text is None:
        return Checkpoint(path, _published_header(shapes), shapes)
    try:
        return Checkpoint(path, Header.model_validate(json.loads(text)), shapes)
    except (ValidationError, json.JSONDecodeError) as e:
        raise UserError(f"{path} has a header that this version cannot read; train it anew with `vtpbench train oc-vtp`") from e


def _safetensors(path: str) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping, has only keys()
    except SafetensorError as e:
        raise UserError(f"{path} is no readable safetensors file: {e}") from e


def _published(path: str) -> dict[str, Tensor]:
    """Read the authors' layout: a bare state dict, or one under the key `state_dict`."""
    if not is_zipfile(path):  # the restricted unpickler fails in any way on other content
        raise UserError(f"{path} is no PyTorch file; expected weights.pth as published, or *.safetensors")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as e:
        raise UserError(f"{path} is damaged or holds more than plain weights; expected weights.pth as published") from e
    state = found.get("state_dict", found) if isinstance(found, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path} holds no state dict; expected weights.pth as published, or *.safetensors")
    return state


def _published_header(shapes: Mapping[str, Sequence[int]]) -> Header:
    positions = shapes.get("decode.posit_embed._pe")
    return Header(tokens=None if positions is None else positions[1])
