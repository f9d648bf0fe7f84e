"""`vtpbench data SUITE`: which datasets and checkpoints a suite needs, which are here, and how to bring the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vtpbench.harness import hub, taskdata
from vtpbench.harness.benchmarks import Benchmark
from vtpbench.harness.specs import ModelSpec
from vtpbench.harness.suite import Suite
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
    """Look for everything that a suite needs; nothing is fetched, and the hub, where it answers, is asked for sizes only."""
    datasets = [asset for benchmark in suite.benchmarks.values() for asset in _datasets(benchmark)]
    return [*datasets, *map(_model, suite.models)]


def fetch(suite: Suite, say: Callable[[str], None] = lambda line: None) -> None:
    """Bring what is missing into the cache, one thing after the other; `say` is told of each.

    Raises
    ------
    UserError : the hub is out of reach or refuses; what came before stays

    """
    from vtpbench.harness.models.load import find_checkpoint

    for benchmark in suite.benchmarks.values():
        if taskdata.must_download(benchmark):
            say(f"fetching the dataset {benchmark.definition()['dataset_path']} for {benchmark.label}")
            taskdata.fetch(benchmark)
    for spec in suite.models:
        if _model(spec).state == "missing":
            say(f"fetching the model {spec.path}")
            find_checkpoint(spec.location, spec.revision, spec.label)


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


def advice(assets: Sequence[Asset]) -> list[str]:
    """Say what to do about what is missing: here, or on a machine with network for one without."""
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
        "or, in one go: run `HF_HOME=hf vtpbench data SUITE --fetch` there, copy the folder hf, and set HF_HOME to it here",
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


def _model(spec: ModelSpec) -> Asset:
    """Checkpoint of a model: a folder, or a hub id."""
    if Path(spec.location).is_dir():
        files = Path(spec.location).rglob("*")
        return Asset("model", spec.label, spec.path, None, "", "local", spec.location, _total(files), "")
    folder = hub.cached_model(spec.path, spec.revision)
    if folder is not None:
        return Asset("model", spec.label, spec.path, None, "", "cached", str(folder), _total(folder.rglob("*")), "")
    size, place = _remote(lambda: hub.model_size(spec.path, spec.revision)), str(hub.model_place(spec.path))
    command = f"hf download {spec.path}" + (f" --revision {spec.revision}" if spec.revision else "")
    return Asset("model", spec.label, spec.path, None, "", "missing", place, size, command)


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
