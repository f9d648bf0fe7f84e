"""What the Hugging Face cache holds, and whether the hub can be asked for the rest; nothing here waits or retries."""

from __future__ import annotations

import ssl
import threading
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from vtpbench.pruners.errors import UserError

TIMEOUT_S = 2.0


def cached_revision(dataset: str, config: str | None) -> str | None:
    """Commit of a dataset's newest copy in the cache, None where there is none.

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
    return max(copies, key=lambda copy: copy.stat().st_mtime).name if copies else None


def latest_revision(dataset: str) -> str:
    """Ask the hub for a dataset's newest commit; raises `UserError` where it cannot tell."""
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        found = HfApi(endpoint=_endpoint()).dataset_info(dataset, timeout=5 * TIMEOUT_S)
    except (HfHubHTTPError, httpx.HTTPError) as e:
        reason = str(e).strip().splitlines()[0]
        fix = "check its name, and log in if it is gated"
        raise UserError(f"the hub does not give the dataset {dataset}: {reason}; {fix}") from e
    if found.sha is None:
        raise UserError(f"the hub names no commit for the dataset {dataset}; try again later")
    return found.sha


def offline_reason() -> str | None:
    """Say why the hub cannot be asked, None where it can; tried once per process, two seconds at most."""
    if _config().HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return None if _reachable(_endpoint()) else f"{_endpoint()} cannot be reached"


def cache_folder() -> Path:
    """Where `datasets` keeps its copies."""
    return Path(_config().HF_DATASETS_CACHE)


def _endpoint() -> str:
    return str(_config().HF_ENDPOINT)


def _config() -> Any:
    """Import the settings of `datasets`, which has no type hints and takes a second to import: only hub datasets pay for it."""
    return import_module("datasets.config")


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
