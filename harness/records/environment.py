"""What a cell runs on: versions, device, platform, commit; found without importing lmms-eval."""

from __future__ import annotations

import json
import platform
import subprocess
from base64 import urlsafe_b64encode
from functools import cache
from hashlib import sha256
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version
from pathlib import Path

from vtpbench.harness.records.record import CODE, PYTHON, VTPBENCH, Environment

NUMERICS = 5
"""To be raised where a score, an answer or a kept token may change: a release names the state of its code by it.

Releases of one revision share their cells, so that upgrading measures nothing anew; a checkout goes by the hash of its source.
`tests/harness/records/test_numerics.py` compares answers and kept tokens with those that are stored for the revision.
"""
IDENTITY = ("lmms-eval", "transformers", "torch", "pillow", "tokenizers")
"""Packages whose versions can change a number; they enter a cell's identity. vtpbench's own code enters it as `CODE`."""
ROOT = Path(__file__).resolve().parents[2]
"""Folder of the package, or of the checkout."""
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
    return {**{name: version_of(name) or "missing" for name in IDENTITY}, CODE: release_revision() or code_hash(ROOT)}


def recorded_versions() -> dict[str, str]:
    """All versions that a record states, also those that change no number by themselves."""
    return {**versions(), VTPBENCH: version_of(VTPBENCH) or "missing", PYTHON: platform.python_version()}


@cache
def release_revision() -> str | None:
    """Name the numerics revision where this is an installed release; see `revision_of`."""
    try:
        return revision_of(distribution(VTPBENCH), ROOT)
    except PackageNotFoundError:
        return None


def revision_of(installed: Distribution, root: Path) -> str | None:
    """Name the numerics revision of a release below the folder of the package.

    None for everything else: a checkout, what was installed from a folder or a repository, and a release of which a source file
    was edited or added.
    """
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    if origin.keys() & {"dir_info", "vcs_info"}:
        return None
    listed = {Path(str(installed.locate_file(file))).resolve(): file.hash for file in installed.files or ()}
    sources = [file.resolve() for part in ("harness", "pruners") for file in sorted((root / part).rglob("*.py"))]
    for file in sources:
        known = listed.get(file)
        if known is None or (known.mode, known.value) != ("sha256", _listed_hash(file)):
            return None
    return f"numerics {NUMERICS}"


def _listed_hash(file: Path) -> str:
    """Hash a file as the list of an installed distribution has it."""
    return urlsafe_b64encode(sha256(file.read_bytes()).digest()).rstrip(b"=").decode()


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
        versions=recorded_versions(),
        device=device_name(device),
        platform=platform.platform(),
        git_commit=git_commit(ROOT),
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
