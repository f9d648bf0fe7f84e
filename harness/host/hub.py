"""What the Hugging Face cache holds, and whether the hub can be asked for the rest; only `download` waits or retries."""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from vtpbench.pruners.errors import UserError

TIMEOUT_S = 2.0


def cached_revision(dataset: str, config: str | None) -> str | None:
    """Commit of a dataset's newest copy in the cache, None where there is none."""
    copy = cached_copy(dataset, config)
    return None if copy is None else copy.name


def cached_copy(dataset: str, config: str | None) -> Path | None:
    """Folder of a dataset's newest copy in the cache, None where there is none.

    The copies lie in `<cache>/<owner>___<dataset>/<config>/<version>/<commit>`; without network, `datasets` uses these only.
    """
    wanted = _squash(dataset.replace("/", "___"))
    folders = (folder for folder in cache_folder().glob("*") if _squash(folder.name) == wanted)
    copies = [
        copy
        for folder in folders
        for copy in folder.glob(f"{config or '*'}/*/*")
        if (copy / "dataset_info.json").is_file()  # written last: a broken download has none
    ]
    return max(copies, key=lambda copy: copy.stat().st_mtime, default=None)


def dataset_place(dataset: str) -> Path:
    """Folder of the cache in which `datasets` looks for the copies of a dataset."""
    owner, _, name = dataset.rpartition("/")
    snake = str(_part_of_datasets("naming").camelcase_to_snakecase(name))
    return cache_folder() / (f"{owner}___{snake}" if owner else snake)


def download(dataset: str, config: str | None, revision: str | None = None) -> None:
    """Bring a dataset into the cache; raises `UserError` where the hub does not give it."""
    with _hub_errors(f"dataset {dataset}"):
        import_module("datasets").load_dataset(dataset, config, revision=revision, trust_remote_code=False)


def download_size(dataset: str, config: str | None) -> int | None:
    """Bytes that a configuration takes in the cache, as its card on the hub says; None where it does not say."""
    info = _dataset_info(dataset)
    stated = (info.card_data or {}).get("dataset_info") or []
    for each in [stated] if isinstance(stated, dict) else stated:
        if each.get("config_name", "default") == (config or "default"):
            return each.get("dataset_size")
    return None


def cached_model(model: str, revision: str | None) -> Path | None:
    """Folder of a checkpoint in the cache, None where it is not there with its weights; raises `UserError` for no hub id."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(model, "config.json", cache_dir=_models_folder(), revision=revision)
    except HFValidationError as e:
        raise UserError(f"model '{model}' is neither a checkpoint folder nor a hub id such as llava-hf/llava-1.5-7b-hf") from e
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    return folder if any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin")) else None


def fetch_config(model: str, revision: str | None) -> Path:
    """Bring the configuration of a checkpoint into the cache, nothing else; raises `UserError` where the hub does not give it."""
    from huggingface_hub import hf_hub_download

    with _hub_errors(f"model {model}"):
        return Path(hf_hub_download(model, "config.json", revision=revision))


def model_place(model: str) -> Path:
    """Folder of the cache in which a checkpoint is looked for."""
    return _models_folder() / f"models--{model.replace('/', '--')}"


def model_size(model: str, revision: str | None) -> int:
    """Bytes of a checkpoint's configuration and weights on the hub."""
    with _hub_errors(f"model {model}"):
        found = _api().model_info(model, revision=revision, timeout=5 * TIMEOUT_S, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in found.siblings or ()}
    weights = {name for name in sizes if name.endswith(".safetensors")} or {name for name in sizes if name.endswith(".bin")}
    return sum(size for name, size in sizes.items() if name in weights or name.endswith((".json", ".model", ".txt", ".jinja")))


def latest_revision(dataset: str) -> str:
    """Ask the hub for a dataset's newest commit; raises `UserError` where it cannot tell."""
    found = _dataset_info(dataset)
    if found.sha is None:
        raise UserError(f"the hub names no commit for the dataset {dataset}; try again later")
    return str(found.sha)


def offline_reason() -> str | None:
    """Say why the hub cannot be asked, None where it can; tried once per process, two seconds at most."""
    if _config().HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return None if _reachable(_endpoint()) else f"{_endpoint()} cannot be reached"


def cache_folder() -> Path:
    """Where `datasets` keeps its copies."""
    return Path(_config().HF_DATASETS_CACHE)


def _models_folder() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=_endpoint())


def _dataset_info(dataset: str) -> Any:
    with _hub_errors(f"dataset {dataset}"):
        return _api().dataset_info(dataset, timeout=5 * TIMEOUT_S)


@contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    """Say in one line that the hub refuses."""
    refusals = import_module("datasets.exceptions").DatasetNotFoundError, transport_error(), ConnectionError
    try:
        yield
    except refusals as e:
        fix = "check its name, and log in if it is gated: hf auth login"
        raise UserError(f"the hub does not give the {what}: {first_line(e)}; {fix}") from e


def transport_error() -> type[Exception]:
    """Find the base of what the HTTP library of the installed huggingface_hub raises; `HfHubHTTPError`, a refusal, is one."""
    found: type[Exception] = import_module("huggingface_hub.errors").HTTPError
    return found


def first_line(error: BaseException) -> str:
    """Say the gist of an error, its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _endpoint() -> str:
    return str(_config().HF_ENDPOINT)


def _config() -> Any:
    """Read the settings of `datasets`: where its cache lies, which hub it asks."""
    return _part_of_datasets("config")


def _part_of_datasets(name: str) -> Any:
    """Give a module of `datasets`: the one in use, else a copy of its own, since the package takes seconds to import."""
    return sys.modules.get(f"datasets.{name}") or _alone(name)


@cache
def _alone(name: str) -> Any:
    package = find_spec("datasets")
    if package is None or package.origin is None:
        return import_module(f"datasets.{name}")  # says that it is not installed
    spec = spec_from_file_location(f"vtpbench_datasets_{name}", Path(package.origin).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def _reachable(endpoint: str) -> bool:
    answered: list[bool] = []

    def ask() -> None:
        try:
            urlopen(Request(endpoint, method="HEAD"), timeout=TIMEOUT_S)  # knows the machine's proxy settings
        except HTTPError:
            pass  # any answer is a sign of life
        except URLError as e:
            if not isinstance(e.reason, ssl.SSLError):  # a certificate that Python's own list lacks: the hub is there
                return
        except OSError:
            return
        answered.append(True)

    thread = threading.Thread(target=ask, daemon=True)  # looking a host name up has no timeout of its own
    thread.start()
    thread.join(TIMEOUT_S)
    return bool(answered)


def _squash(name: str) -> str:
    """Compare names as `datasets` spells them (MMBench -> mm_bench) without knowing its rules."""
    return name.replace("_", "").lower()
