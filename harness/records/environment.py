"""What a cell runs on: versions, device, platform, commit; found without importing lmms-eval."""

from __future__ import annotations

import platform
import subprocess
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from vtpbench.harness.records.record import CODE, Environment

IDENTITY = ("vtpbench", "lmms-eval", "transformers", "torch")
"""Packages whose versions can change a number; they enter a cell's identity."""
DECIDING_FOLDERS = ("harness/pruning", "harness/models", "harness/run")
"""Folders whose files can change a number: an edit in a checkout measures cells anew."""
DECIDING_FILES = (
    "harness/host/images.py",
    "harness/records/cell.py",
    *(f"harness/suite/{name}" for name in ("benchmarks.py", "generation.py", "specs.py", "task_data.py", "task_file.py")),
    *(f"pruners/{name}.py" for name in ("base", "budget", "errors", "evidence", "geometry", "ranking", "transfer")),
)
"""Single files of other folders that can."""


def versions() -> dict[str, str]:
    """Versions that enter a cell's identity."""
    return {**{name: version_of(name) or "missing" for name in IDENTITY}, CODE: code_hash(Path(__file__).resolve().parents[2])}


def code_hash(root: Path) -> str:
    """Hash the source files that decide numbers, below the folder of the package; line ends do not count.

    Raises
    ------
    FileNotFoundError : a file or folder that decides numbers is not where this module says

    """
    files = [root / name for name in DECIDING_FILES]
    for name in DECIDING_FOLDERS:
        found = sorted((root / name).rglob("*.py"))
        if not found:
            raise FileNotFoundError(f"no source files below {root / name}")
        files += found
    digest = sha256()
    for file in files:
        digest.update(f"{file.relative_to(root).as_posix()}\0{file.read_text(encoding='utf-8')}\0".encode())
    return digest.hexdigest()[:16]


def version_of(distribution: str) -> str | None:
    """Installed version of a distribution, None where it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def environment(device: str) -> Environment:
    """Describe this process for a record; `device` as torch names it."""
    return Environment(
        versions={**versions(), "python": platform.python_version()},
        device=device_name(device),
        platform=platform.platform(),
        git_commit=git_commit(Path(__file__).resolve().parents[2]),
    )


def device_name(device: str) -> str:
    """Name of the hardware behind a torch device."""
    if device.partition(":")[0] == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return f"{cpu_name()} ({device})"


def cpu_name() -> str:
    """Processor as the system names it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def git_commit(folder: Path) -> str | None:
    """Commit of the checkout at `folder`, with `+changes` where files differ from it; None outside of a checkout."""
    if not (folder / ".git").exists():  # an installed copy, perhaps inside somebody else's checkout
        return None
    head, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", "--untracked-files=no")
    return head and head + ("+changes" if changes else "")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git, or no commit yet
        return None
    return done.stdout.strip()
