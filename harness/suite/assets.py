"""`vtpbench data SUITE`: which datasets and checkpoints a suite needs, which are here, and how to bring the rest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vtpbench.harness.host import hub
from vtpbench.harness.host.json_text import BadJson, load_json
from vtpbench.harness.suite import task_data as taskdata
from vtpbench.harness.suite.benchmarks import Benchmark
from vtpbench.harness.suite.specs import ModelSpec, PrunerSpec, build_described
from vtpbench.harness.suite.suite import Suite
from vtpbench.pruners.base import LLAVA_1_5_7B, TextTowerSource
from vtpbench.pruners.errors import UserError

State = Literal["local", "cached", "missing"]
Size = Callable[[], int | None]


@dataclass(frozen=True)
class Asset:
    """One configuration of a dataset, or one checkpoint.

    Attributes
    ----------
    kind : `dataset` or `model`
    used_by : label of the benchmark or model
    name : hub id, or local folder or format
    config : configuration of a dataset that has several
    split : what the benchmark asks of a dataset
    state : `local` = files that the suite names, `cached` = in the Hugging Face cache
    place : where it is, or where it must come
    size_bytes : on disk; of what is missing, as the hub says; None = unknown
    command : how to get it on a machine with network; empty for what is here

    """

    kind: Literal["dataset", "model"]
    used_by: str
    name: str
    config: str | None
    split: str
    state: State
    place: str
    size_bytes: int | None
    command: str


def examine(suite: Suite) -> list[Asset]:
    """Look for everything that a suite needs; nothing is fetched, and the hub, where it answers, is asked for sizes only.

    What a checkpoint refers to is known only once the checkpoint is here. Models of random weights need nothing.
    """
    datasets = [asset for benchmark in suite.benchmarks.values() for asset in _datasets(benchmark)]
    reads = _reads_with_clip(suite)
    return [*datasets, *(asset for spec in _checkpoints(suite) for asset in _model(spec, reads))]


def fetch(suite: Suite, say: Callable[[str], None] = lambda line: None) -> None:
    """Bring what is missing into the cache, one thing after the other; `say` is told of each.

    Raises
    ------
    UserError : the hub is out of reach or refuses; what came before stays

    """
    for benchmark in suite.benchmarks.values():
        if taskdata.must_download(benchmark):
            say(f"fetching the dataset {benchmark.definition()['dataset_path']} for {benchmark.label}")
            taskdata.fetch(benchmark)
    from vtpbench.harness.models.lora_adapter import base_of

    reads = _reads_with_clip(suite)
    for spec in _checkpoints(suite):
        folder = _bring(_own(spec), spec.revision, say)
        base = base_of(folder)
        for part in _referred(spec, folder):
            _bring(part, None if base is None else base[1], say)
        for tower in _text_tower(spec, folder) if reads else ():
            _bring(tower, None, say)


def rows(assets: Iterable[Asset]) -> list[dict[str, Any]]:
    """Give assets as rows of a table."""
    return [
        {
            "for": asset.used_by,
            "kind": asset.kind,
            "name": asset.name if asset.config is None else f"{asset.name} ({asset.config})",
            "split": asset.split,
            "state": asset.state,
            "size": _shown(asset.size_bytes),
            "place": asset.place,
        }
        for asset in assets
    ]


def advice(assets: Sequence[Asset], suite: str = "SUITE") -> list[str]:
    """Say what to do about what is missing: here, or on a machine with network for one without; `suite` is how it was called."""
    missing = [asset for asset in assets if asset.state == "missing"]
    commands = dict.fromkeys(asset.command for asset in missing if asset.command)
    if not missing:
        return ["everything is here"]
    if not commands:
        return [f"{len(missing)} missing: put the files where the suite names them"]
    if (reason := hub.offline_reason()) is None:
        return [f"{len(missing)} missing: add --fetch to download them"]
    places = dict.fromkeys(asset.place for asset in missing if asset.command)
    return [
        f"{len(missing)} missing, and {reason}; on a machine with network run",
        *(f"  {command}" for command in commands),
        "and copy from its Hugging Face cache to this machine, under the same names,",
        *(f"  {place}" for place in places),
        f"or, in one go: run `HF_HOME=hf vtpbench data {suite} --fetch` there, copy the folder hf, and set HF_HOME to it here",
    ]


def _datasets(benchmark: Benchmark) -> list[Asset]:
    """Look for the data of a benchmark: the files that it names, or each configuration of its dataset."""
    definition = benchmark.definition()
    name, split = str(definition.get("dataset_path")), str(definition.get("test_split") or definition.get("validation_split"))
    try:
        files = taskdata.local_data(benchmark)
    except UserError as e:
        return [Asset("dataset", benchmark.label, name, None, split, "missing", str(e), None, "")]
    if files is not None:
        folder = str(min((file.parent for file in files.values()), key=lambda path: len(path.parts), default=name))
        return [Asset("dataset", benchmark.label, name, None, split, "local", folder, _total(files.values()), "")]
    return [_hub_dataset(benchmark.label, name, config, split) for config in taskdata.configs(benchmark)]


def _hub_dataset(label: str, name: str, config: str | None, split: str) -> Asset:
    copy = hub.cached_copy(name, config)
    if copy is not None:
        return Asset("dataset", label, name, config, split, "cached", str(copy), _total(copy.rglob("*")), "")
    size, place = _remote(lambda: hub.download_size(name, config)), str(hub.dataset_place(name))
    return Asset("dataset", label, name, config, split, "missing", place, size, taskdata.download_command(name, config))


def _checkpoints(suite: Suite) -> Iterator[ModelSpec]:
    return (spec for spec in suite.models if spec.dummy is None)


def _model(spec: ModelSpec, reads_with_clip: bool) -> Iterator[Asset]:
    """Look for the checkpoint of a model and, where it is here, for what it refers to."""
    own = _own(spec)
    yield own
    if own.state != "missing":
        yield from _referred(spec, Path(own.place))
        yield from _text_tower(spec, Path(own.place)) if reads_with_clip else ()


def _reads_with_clip(suite: Suite) -> bool:
    """Whether any pruner reads the question with the text tower beside a CLIP vision tower."""
    clip = TextTowerSource("of any model", "any weights")
    shape = replace(LLAVA_1_5_7B, text_tower=clip)

    def reads(spec: PrunerSpec) -> bool:
        try:
            return any(need.kind == "joint" for need in build_described(spec)[0].needs(shape))
        except UserError:  # `plan` says what is wrong with it
            return False

    return any(reads(spec) for matrix in suite.matrix for spec in matrix.pruners)


def _text_tower(spec: ModelSpec, folder: Path) -> Iterator[Asset]:
    """Look for the CLIP model whose text tower stands beside a checkpoint's vision tower."""
    from vtpbench.harness.models.load import text_tower_of
    from vtpbench.harness.models.lora_adapter import base_of

    if base_of(folder) is not None:
        return  # what its base is made of is known once that is here
    try:
        name = spec.text_tower or text_tower_of(folder, spec.label)
    except UserError:  # no checkpoint: `plan` says what is wrong with it
        return
    if name is not None:
        yield _checkpoint(f"{spec.label} (text tower)", name, name, None)


def _own(spec: ModelSpec) -> Asset:
    return _checkpoint(spec.label, spec.path, spec.location, spec.revision)


def _referred(spec: ModelSpec, folder: Path) -> Iterator[Asset]:
    """Look for what a checkpoint refers to: the base of an adapter, the vision tower of one in LLaVA's original layout."""
    from vtpbench.harness.models.lora_adapter import base_of

    base = base_of(folder)
    if base is not None:
        yield _checkpoint(f"{spec.label} (base)", base[0], *base)
        return
    try:
        config = load_json(folder / "config.json")
    except BadJson:  # no checkpoint: `plan` says what is wrong with it
        return
    tower = config.get("mm_vision_tower") if isinstance(config, dict) else None
    if isinstance(tower, str) and not os.path.isdir(folder / tower):
        yield _checkpoint(f"{spec.label} (vision tower)", tower, tower, None)


def _checkpoint(label: str, name: str, location: str, revision: str | None) -> Asset:
    """Look for a checkpoint: a folder, or a hub id."""
    if Path(location).is_dir():
        return Asset("model", label, name, None, "", "local", location, _total(Path(location).rglob("*")), "")
    folder = hub.cached_model(name, revision)
    if folder is not None:
        return Asset("model", label, name, None, "", "cached", str(folder), _total(folder.rglob("*")), "")
    size, place = _remote(lambda: hub.model_size(name, revision)), str(hub.model_place(name))
    command = f"hf download {name}" + (f" --revision {revision}" if revision else "")
    return Asset("model", label, name, None, "", "missing", place, size, command)


def _bring(asset: Asset, revision: str | None, say: Callable[[str], None]) -> Path:
    """Fetch a checkpoint unless it is here; returns its folder."""
    from vtpbench.harness.models.load import find_checkpoint

    if asset.state != "missing":
        return Path(asset.place)
    say(f"fetching the model {asset.name}")
    return find_checkpoint(asset.name, revision, asset.used_by)


def _remote(size: Size) -> int | None:
    """Ask the hub for a size; None where it cannot be asked or does not know the thing."""
    if hub.offline_reason() is not None:
        return None
    try:
        return size()
    except UserError:  # a private or mistyped name: the row says `missing`, fetching says why
        return None


def _total(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.is_file())


def _shown(size_bytes: int | None) -> str:
    if size_bytes is None:
        return "unknown"
    for unit, divisor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= divisor:
            return f"{size_bytes / divisor:.1f} {unit}"
    return f"{size_bytes} B"
