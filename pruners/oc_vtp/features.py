"""Vision features on disk: float16 rows in memory-mapped shards and an index, written once, resumed after any interruption.

A folder holds `meta.json`, `index.jsonl` (a line per image) and `shard-00000.f16` ...; rows are written before their line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from vtpbench.pruners.base import Grid
from vtpbench.pruners.errors import UserError

META, INDEX = "meta.json", "index.jsonl"


@dataclass(frozen=True)
class FeatureMeta:
    """Where features come from; features of another origin never share a folder."""

    model: str
    """Hub id or path."""
    tower: str | None
    """Hash of the vision tower's weights, None where it cannot be told."""
    layer: int
    """Module index of the vision layer."""
    width: int
    geometry: str
    """How images were made to fit: `squash`, `pad`, or `native`."""


class ImageFeatures(NamedTuple):
    """One image: its name (content hash), how its tokens lie, and its tokens `(n, width)` without CLS."""

    key: str
    grid: Grid
    tokens: Tensor


class FeatureSource(Protocol):
    """Something that can compute features: a model with a folder of images."""

    @property
    def meta(self) -> FeatureMeta:
        """Where the features come from."""
        ...

    def keys(self) -> Sequence[str]:
        """Names of all images, in a fixed order; the content hash of each."""
        ...

    def features(self, keys: Sequence[str]) -> Iterator[ImageFeatures]:
        """Compute the named images, in that order."""
        ...


@dataclass(frozen=True)
class FeatureBatch:
    """Images to train on.

    Attributes
    ----------
    features : (B, N, C) float32, zero at filling
    present : (B, N) bool, False at filling
    places : (B, N, 2) int64 row and column of each token, tiles stacked downwards

    """

    features: Tensor
    present: Tensor
    places: Tensor

    @property
    def valid(self) -> Tensor | None:
        """`present`, or None where nothing is filled: the quicker kernels need no mask."""
        return None if bool(self.present.all()) else self.present

    def to(self, device: torch.device) -> FeatureBatch:
        """Give a copy with all tensors on a device."""
        return FeatureBatch(self.features.to(device), self.present.to(device), self.places.to(device))


@dataclass(frozen=True)
class _Line:
    """One image in the index: its rows begin at `row` of a shard."""

    key: str
    grid: Grid
    shard: int
    row: int

    @property
    def end(self) -> int:
        return self.row + self.grid.n

    def dump(self) -> bytes:
        return (json.dumps(asdict(self)) + "\n").encode()

    @classmethod
    def parse(cls, text: bytes) -> _Line:
        values = json.loads(text)
        return cls(values["key"], Grid(**values["grid"]), values["shard"], values["row"])


def extract(
    source: FeatureSource,
    folder: Path,
    *,
    exclude: Collection[str] = (),
    on_image: Callable[[int, int], None] = lambda done, total: None,
    shard_rows: int = 1 << 20,
) -> FeatureStore:
    """Write what is missing of a source's features, but for excluded images; calls `on_image(done, total)` after each."""
    keys = [key for key in dict.fromkeys(source.keys()) if key not in exclude]
    if not keys:
        raise UserError("no image is left to extract features from; check the image folder and the exclusion list")
    lines = _prepare(folder, source.meta)
    written = {line.key for line in lines}
    todo = [key for key in keys if key not in written]
    done = len(keys) - len(todo)
    on_image(done, len(keys))
    last = lines[-1] if lines else None
    for image in source.features(todo):
        last = _append(folder, image, source.meta.width, last, shard_rows)
        done += 1
        on_image(done, len(keys))
    return FeatureStore(folder, keys)


class FeatureStore:
    """Read access to what `extract` wrote, to all images or to those named; the order of names does not matter."""

    def __init__(self, folder: Path, keys: Collection[str] | None = None) -> None:
        self.meta = _read_meta(folder)
        lines = {line.key: line for line in _read_index(folder)[0]}
        names = sorted(lines if keys is None else keys)
        if not names:
            raise UserError(f"{folder} holds no features yet; extract some first")
        self._lines = [lines[name] for name in names]
        self._shards = [np.memmap(path, np.float16, "r").reshape(-1, self.meta.width) for path in sorted(folder.glob("*.f16"))]

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the images, sorted: independent of the order in which they were extracted."""
        return tuple(line.key for line in self._lines)

    @property
    def mean_tokens(self) -> float:
        """Tokens per image, mean."""
        return sum(line.grid.n for line in self._lines) / len(self)

    @property
    def tokens(self) -> int | None:
        """Tokens of every image, None where they differ."""
        counts = {line.grid.n for line in self._lines}
        return counts.pop() if len(counts) == 1 else None

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the origin and of the images' names and sizes, 16 hexadecimal digits."""
        facts = [asdict(self.meta), [(line.key, asdict(line.grid)) for line in self._lines]]
        return sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def batch(self, images: Sequence[int]) -> FeatureBatch:
        """Read images by number, filled up to the longest."""
        lines = [self._lines[i] for i in images]
        longest = max(line.grid.n for line in lines)
        features = torch.zeros(len(lines), longest, self.meta.width)
        present = torch.zeros(len(lines), longest, dtype=torch.bool)
        places = torch.zeros(len(lines), longest, 2, dtype=torch.int64)
        for i, line in enumerate(lines):
            rows = self._shards[line.shard][line.row : line.end]
            features[i, : line.grid.n] = torch.from_numpy(rows.astype(np.float32))
            present[i, : line.grid.n] = True
            places[i, : line.grid.n] = _places(line.grid)
        return FeatureBatch(features, present, places)


def _places(grid: Grid) -> Tensor:
    token = torch.arange(grid.n)
    return torch.stack([token // grid.width, token % grid.width], dim=-1)


def _append(folder: Path, image: ImageFeatures, width: int, last: _Line | None, shard_rows: int) -> _Line:
    """Write rows behind the last image's, then the line that vouches for them."""
    assert image.tokens.shape == (image.grid.n, width), (tuple(image.tokens.shape), image.grid, width)
    rows = image.tokens.detach().cpu().to(torch.float16).numpy()
    if not np.isfinite(rows).all():
        raise UserError(f"features of image {image.key} do not fit in float16; choose another vision layer")
    shard, row = (last.shard, last.end) if last else (0, 0)
    if row and row + len(rows) > shard_rows:
        shard, row = shard + 1, 0
    line = _Line(image.key, image.grid, shard, row)
    for path, content in ((_shard(folder, shard), rows.tobytes()), (folder / INDEX, line.dump())):
        with path.open("ab") as file:
            file.write(content)
    return line


def _prepare(folder: Path, meta: FeatureMeta) -> list[_Line]:
    """Open a folder for writing: check its origin and cut off what an interruption left half written."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / META).exists():
        part = folder / f".{META}.part"
        part.write_text(json.dumps(asdict(meta), indent=1), encoding="utf-8")
        os.replace(part, folder / META)
    if (found := _read_meta(folder)) != meta:
        raise UserError(f"{folder} holds features of another origin ({found}); choose another folder or delete it")
    (folder / INDEX).touch()
    lines, size = _read_index(folder)
    os.truncate(folder / INDEX, size)
    ends = {_shard(folder, line.shard): line.end for line in lines}  # in order of writing: the last line of a shard ends it
    for path in folder.glob("*.f16"):
        if path in ends:
            os.truncate(path, ends[path] * meta.width * 2)
        else:
            path.unlink()
    return lines


def _read_meta(folder: Path) -> FeatureMeta:
    try:
        return FeatureMeta(**json.loads((folder / META).read_text(encoding="utf-8")))
    except (OSError, TypeError, json.JSONDecodeError) as e:
        raise UserError(f"{folder} is no folder of features ({type(e).__name__}); extract features into it first") from e


def _read_index(folder: Path) -> tuple[list[_Line], int]:
    """Read the complete lines, and how many bytes they fill."""
    index = folder / INDEX
    content = index.read_bytes() if index.exists() else b""
    size = content.rfind(b"\n") + 1
    return [_Line.parse(text) for text in content[:size].splitlines()], size


def _shard(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.f16"
