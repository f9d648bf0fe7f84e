"""`vtpbench doctor`: what is installed, what it runs on, and known-bad combinations with their mends.

The environment is read here to be reported; nothing is configured by it.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from vtpbench.harness.host.launcher import disturbance
from vtpbench.harness.records.environment import cpu_name, version_of

SHOWN = ("vtpbench", "torch", "torchvision", "transformers", "lmms-eval", "accelerate", "datasets", "pyarrow", "pydantic")
SMALL_DISK_GIB = 1.0
PAIR_MEND = (
    "install both anew from one index, so that both are CPU or both are the same CUDA build: "
    "pip install --force-reinstall torch torchvision"
)


@dataclass(frozen=True)
class Finding:
    """One line of the report; `broken` makes the command fail."""

    topic: str
    status: Literal["ok", "note", "broken"]
    detail: str
    mend: str | None = None


def examine(results: Path) -> list[Finding]:
    """Look at everything; `results` is the folder whose disk is asked for space."""
    checks: tuple[Callable[[], Iterable[Finding]], ...] = (
        lambda: installed(version_of),
        lambda: requirements("vtpbench", version_of),
        lambda: requirements("torchvision", version_of),
        torchvision_pair,
        lambda: launched(os.environ),
        devices,
        caches,
        lambda: disk(results),
    )
    return [finding for check in checks for finding in check()]


def installed(version: Callable[[str], str | None]) -> Iterator[Finding]:
    """Versions of the packages that matter."""
    yield Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")
    for name in SHOWN:
        found = version(name)
        if found is not None:
            yield Finding(name, "ok", found)
        elif name == "lmms-eval":
            still = "run needs it, and so do plan and data for its own tasks; all other commands work without it"
            yield Finding(name, "broken", f"not installed; {still}", "pip install lmms-eval")
        elif name == "vtpbench":
            yield Finding(name, "broken", "runs from a source tree that is not installed", "pip install -e . in that tree")
        else:
            yield Finding(name, "broken", "not installed", f"pip install {name}")


def requirements(distribution: str, version: Callable[[str], str | None]) -> Iterator[Finding]:
    """Installed versions that a distribution's own metadata rule out."""
    try:
        wanted = [Requirement(line) for line in requires(distribution) or []]
    except PackageNotFoundError:  # reported by `installed`
        return
    for need in wanted:
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        found = version(need.name)
        if found is not None and not need.specifier.contains(found, prereleases=True):
            yield Finding(need.name, "broken", f"{found}, but {distribution} needs {need}", f"pip install '{need}'")
        elif found is None and need.name not in SHOWN:
            yield Finding(need.name, "broken", f"not installed, but {distribution} needs it", f"pip install '{need}'")


def torchvision_pair() -> Iterator[Finding]:
    """Whether torchvision's compiled operators load: builds of two indexes can have fitting versions and still no `nms`."""
    if version_of("torch") is None or version_of("torchvision") is None:
        return
    code = "import torchvision, torch; torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        yield Finding("torchvision pair", "ok", "loads its operators with this torch")
        return
    error = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    yield Finding("torchvision pair", "broken", f"torchvision does not work with this torch: {error}", PAIR_MEND)


def launched(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Variables of process launchers, see `vtpbench.harness.host.launcher`."""
    if found := disturbance(environment):
        yield Finding("launcher", "broken", *found)


def devices() -> Iterator[Finding]:
    """Processor and accelerators; a CUDA build without a driver is no fault."""
    yield Finding("cpu", "ok", f"{cpu_name()}, {os.cpu_count()} threads{_memory()}")
    if version_of("torch") is None:
        return
    try:
        import torch
    except (ImportError, OSError) as e:  # OSError: a shared library that is not there
        yield Finding("torch", "broken", f"cannot be imported: {e}", PAIR_MEND)
        return
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        yield Finding(f"cuda:{i}", "ok", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    if not torch.cuda.is_available():
        build = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is a CPU build"
        yield Finding("cuda", "ok", f"none ({build}); runs use the CPU")


def caches() -> Iterator[Finding]:
    """Where models and datasets are cached, and whether the hub can be asked for more."""
    if version_of("huggingface-hub") is None or version_of("datasets") is None:
        return
    from huggingface_hub import constants

    from vtpbench.harness.host import hub

    yield Finding("model cache", "ok", str(constants.HF_HUB_CACHE))
    yield Finding("data cache", "ok", str(hub.cache_folder()))
    reason = hub.offline_reason()
    if reason is None:
        yield Finding("hub", "ok", "within reach: what is not in the caches can be downloaded")
    else:
        yield Finding("hub", "note", f"offline, {reason}: only what is in the caches, and local folders, can be used")


def disk(results: Path) -> Iterator[Finding]:
    """Report the free space where results go."""
    existing = next(folder for folder in (results.absolute(), *results.absolute().parents) if folder.is_dir())
    free_gib = shutil.disk_usage(existing).free / 2**30
    if not os.access(existing, os.W_OK):
        yield Finding("results", "broken", f"{existing} cannot be written", "choose another folder with --out")
    elif free_gib < SMALL_DISK_GIB:
        yield Finding("results", "note", f"{existing}: only {free_gib:.2f} GiB free", "free some space or use another --out")
    else:
        yield Finding("results", "ok", f"{existing}: {free_gib:.0f} GiB free")


def _memory() -> str:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return ""
    return f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB memory"


def as_dicts(findings: Iterable[Finding]) -> list[dict[str, str | None]]:
    """Turn findings into JSON-like dictionaries."""
    return [dataclasses.asdict(finding) for finding in findings]
