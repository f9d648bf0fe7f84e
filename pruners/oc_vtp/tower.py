"""Recognise a vision tower: a pruner serves every model that has the tower whose features it was trained on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TOWER = re.compile(r"(?:.*\.)?(?:vision_tower|visual)\.(?:vision_model\.)?(.+)")
"""Names of a tower's weights in the layouts of LLaVA and Qwen, old and new; the rest of a name is the same in all."""
_OF_NUMPY = ("F16", "F32", "F64")
"""Number formats, as safetensors names them, that are read without importing torch."""


def tower_hash(folder: str | Path) -> str | None:
    """Hash the vision tower of a checkpoint folder, 16 hexadecimal digits; None where no weights of it are found.

    Weights are compared as float32, so that a copy that was only widened is the same tower.
    """
    files = sorted(Path(folder).glob("model*.safetensors"))
    return _tower_hash(tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files))


def hash_weights(named: Iterable[tuple[str, NDArray[Any]]]) -> str:
    """Hash weights by name, type, shape and bytes, in any order, 16 hexadecimal digits."""
    digests = []
    for name, value in named:
        digest = sha256(f"{name} torch.{value.dtype} {value.shape}".encode())  # as trained checkpoints have it
        digest.update(value.tobytes())
        digests.append(digest.digest())
    return sha256(b"".join(sorted(digests))).hexdigest()[:16]


@lru_cache(maxsize=8)
def _tower_hash(files: tuple[tuple[str, int, int], ...]) -> str | None:
    named = list(_names(path for path, _, _ in files))
    return hash_weights(_weights(named)) if named else None


def _names(paths: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """File, name in it and name within the tower, of each of the tower's weights."""
    for path in paths:
        try:
            with safe_open(path, framework="np") as file:
                found = [(name, _TOWER.fullmatch(name)) for name in file.keys()]  # noqa: SIM118 - not a mapping, has only keys()
        except SafetensorError:  # a broken model is the loader's to report
            continue
        yield from ((path, name, match[1]) for name, match in found if match)


def _weights(named: Iterable[tuple[str, str, str]]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Read one weight after the other as float32: a tower may be large."""
    for path, name, own in named:
        with safe_open(path, framework="np") as file:
            known_to_numpy = file.get_slice(name).get_dtype() in _OF_NUMPY
            if known_to_numpy:
                yield own, file.get_tensor(name).astype("float32")
        if not known_to_numpy:
            with safe_open(path, framework="pt") as file:
                yield own, file.get_tensor(name).float().numpy()
