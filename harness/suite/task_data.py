"""The data behind a benchmark: where they are, what identifies them, and what to do where they are missing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtpbench.harness.host import hub
from vtpbench.harness.suite.local_pictures import file_hash, local_pictures
from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    from vtpbench.harness.suite.benchmarks import Benchmark


class MissingData(UserError):
    """Local data that a benchmark names are not there."""


def fingerprint(benchmark: Benchmark) -> str:
    """Hash what a benchmark asks: the task's definition and code, overrides, and the data's content or commit.

    Pictures that local questions name, or that lie beside them, belong to the data. 16 hexadecimal digits; comments, labels,
    and where the files lie make no difference.
    """
    definition = benchmark.definition()
    source = local_data(benchmark)
    if source is None:
        data = _revisions(benchmark, definition)
    else:
        own = None if benchmark.folder is None else benchmark.file.parent
        data = {name: file_hash(path) for name, path in source.items()}
        data |= {f"picture {name}": picture for name, picture in local_pictures(source.values(), own).items()}
        kwargs = {key: value for key, value in (definition.get("dataset_kwargs") or {}).items() if key != "data_files"}
        definition = {**definition, "dataset_path": None, "dataset_kwargs": kwargs}
    code = {path.name: file_hash(path) for path in sorted(benchmark.file.parent.glob("*.py"))}
    facts = {"definition": definition, "code": code, "data": data}
    return sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def require_data(benchmark: Benchmark) -> None:
    """Make sure that the data are here or can be downloaded; raises `UserError` at once, with the way to get them."""
    if local_data(benchmark) is not None:
        return
    path = benchmark.definition()["dataset_path"]
    for config in configs(benchmark):
        if hub.cached_revision(path, config) is None and (reason := hub.offline_reason()):
            raise UserError(
                f"benchmark '{benchmark.label}' needs the dataset {path}{f' ({config})' if config else ''}, which is not in "
                f"{hub.cache_folder()}, and {reason}; on a machine with network run `{download_command(path, config)}` "
                "and copy that folder here, or name a local copy: overrides: {dataset_path: FOLDER}; `vtpbench data SUITE` "
                "lists all that a suite needs"
            )


def download_command(dataset: str, config: str | None) -> str:
    """Shell command that brings a configuration into the cache of a machine with network."""
    call = f"datasets.load_dataset({dataset!r}{f', {config!r}' if config else ''})"
    return f'python -c "import datasets; {call}"'


def is_here(benchmark: Benchmark) -> bool:
    """Whether all data of a benchmark are on this machine; nobody else is asked."""
    try:
        return not must_download(benchmark)
    except MissingData:
        return False


def must_download(benchmark: Benchmark) -> bool:
    """Whether a run would download data first."""
    if local_data(benchmark) is not None:
        return False
    path = benchmark.definition()["dataset_path"]
    return any(hub.cached_revision(path, config) is None for config in configs(benchmark))


def task_config(benchmark: Benchmark) -> dict[str, Any]:
    """Configure lmms-eval's `get_task_dict`: task and overrides, and of a hub dataset the cache, and the fingerprint's commit.

    The commit is named only where the hub can be asked: without network `datasets` takes the newest copy in the cache,
    which is the one that the fingerprint names. The cache is named because lmms-eval takes another one where it believes
    that this one is on a network disk. `datasets` knows a local file by its path and its time, which a copy may keep: such
    data get a cache of their own for each change that the file system has noted. `token: True`, which most official tasks
    carry, is left out: it refuses to fetch even public data for somebody who is not logged in, and whoever is sends the token
    anyway. No dataset may run a script of its own, whatever the task says.
    """
    definition = benchmark.definition()
    asked = {**(definition.get("dataset_kwargs") or {}), "trust_remote_code": False}
    if "data_files" in asked:  # an override is not looked for beside the task
        asked["data_files"] = _beside(asked["data_files"], benchmark.file.parent)
    files = local_data(benchmark)
    if files is not None:
        asked = {"cache_dir": str(hub.cache_folder() / "vtpbench" / _state(files)), **asked}
    else:
        asked = {key: value for key, value in asked.items() if (key, value) != ("token", True)}
        asked = {"cache_dir": str(hub.cache_folder()), **asked}
        if hub.offline_reason() is None:
            asked["revision"] = next(iter(_revisions(benchmark, definition).values()))
    return {"task": benchmark.task, **benchmark.overrides, "dataset_kwargs": asked}


def require_unchanged(benchmark: Benchmark, dataset: str) -> None:
    """Raise `UserError` where local data are no longer those of which `dataset` is the fingerprint."""
    if local_data(benchmark) is not None and fingerprint(benchmark) != dataset:
        raise UserError(f"the data of benchmark '{benchmark.label}' changed while the suite was run; run it again")


def _state(files: Mapping[str, Path]) -> str:
    """Hash what the file system says of files; any change of their content changes it."""
    stats = [(str(path.resolve()), path.stat()) for path in files.values()]
    facts = [(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino) for path, stat in stats]
    return sha256(json.dumps(facts).encode()).hexdigest()[:16]


def fetch(benchmark: Benchmark) -> None:
    """Bring every configuration that is not there into the cache; raises `UserError` where that is impossible."""
    require_data(benchmark)
    if local_data(benchmark) is None:
        path = benchmark.definition()["dataset_path"]
        for config in configs(benchmark):
            if hub.cached_revision(path, config) is None:
                hub.download(path, config)


def local_data(benchmark: Benchmark) -> dict[str, Path] | None:
    """Find the data files on this machine, by name; None where the data are a hub dataset.

    Raises
    ------
    MissingData : a file that the task names does not exist
    UserError : it names none

    """
    definition, folder = benchmark.definition(), benchmark.file.parent
    path = str(definition.get("dataset_path"))
    kwargs = definition.get("dataset_kwargs") or {}
    if "/" not in path and "data_files" in kwargs:
        if kwargs["data_files"] is None:
            raise UserError(f"benchmark '{benchmark.label}' needs data files, and `data_files` of its task names none")
        named = {at: _resolve(benchmark, name, folder) for at, name in _leaves(kwargs["data_files"])}
        return {f"{at}{file.name}": file for at, files in named.items() for file in files}
    for base in (folder, Path()):
        if os.path.isdir(base / path):
            files = sorted(file for file in (base / path).rglob("*") if file.is_file())
            return {file.relative_to(base / path).as_posix(): file for file in files}
    if path.startswith((".", "/", "~")):
        raise MissingData(f"benchmark '{benchmark.label}' needs the folder {path}, which does not exist")
    return None


def _resolve(benchmark: Benchmark, name: str, folder: Path) -> list[Path]:
    """Expand a data file's name as lmms-eval does: beside the task, else, patterns included, from the working folder."""
    for path in (folder / name, Path(name)):
        if os.path.isfile(path):
            return [path]
    try:
        found = [] if Path(name).is_absolute() else sorted(Path().glob(name))
    except (OSError, ValueError, NotImplementedError) as e:  # no pattern
        raise UserError(f"benchmark '{benchmark.label}' needs the data file {name!r:.200}: {e}") from e
    if found:
        return found
    raise MissingData(f"benchmark '{benchmark.label}' needs the data file {folder / name}, which does not exist")


def _beside(value: Any, folder: Path) -> Any:
    """Make names of data files beside a task absolute, in any of the shapes that `datasets` takes."""
    if isinstance(value, dict):
        return {key: _beside(inner, folder) for key, inner in value.items()}
    if isinstance(value, list):
        return [_beside(inner, folder) for inner in value]
    return str((folder / value).resolve()) if isinstance(value, str) and os.path.isfile(folder / value) else value


def configs(benchmark: Benchmark) -> tuple[str | None, ...]:
    """Name the configurations of the dataset that the task loads."""
    return (benchmark.definition().get("dataset_name"), *benchmark.tables)


def _revisions(benchmark: Benchmark, definition: Mapping[str, Any]) -> dict[str, str]:
    """Commit of each configuration that the task loads: the copy in the cache, else the newest on the hub."""
    require_data(benchmark)
    path = definition["dataset_path"]
    return {str(config): hub.cached_revision(path, config) or hub.latest_revision(path) for config in configs(benchmark)}


def _leaves(value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """File names in any of the shapes that `datasets` takes, each with its split and number."""
    if isinstance(value, str):
        yield at, value
    else:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, f"{at}{key}/")
