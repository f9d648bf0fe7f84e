"""Process launchers (torchrun, accelerate, Slurm): their variables make lmms-eval take one process for one of several."""

from __future__ import annotations

import os
from collections.abc import Mapping

from vtpbench.pruners.errors import UserError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


def disturbance(environment: Mapping[str, str]) -> tuple[str, str] | None:
    """Say what launcher variables would do, and the mend; None where there are none.

    lmms-eval would wait for ranks that never come, or answer a part of the questions.
    """
    present = [name for name in VARIABLES if name in environment]
    if not present:
        return None
    shown = ", ".join(f"{name}={environment[name]}" for name in present)
    mend = f"unset {' '.join(present)}; start vtpbench without torchrun or accelerate"
    return f"{shown} set: lmms-eval would run a part of every benchmark only", mend


def refuse_launcher() -> None:
    """Raise `UserError` where lmms-eval would take this process for one of several, and answer a part of the questions."""
    environment = os.environ
    if int(environment.get("WORLD_SIZE") or 1) > 1 or int(environment.get("RANK") or 0) > 0:
        found = disturbance(environment)
        assert found is not None, "a rank or a world size is such a variable"
        raise UserError("; ".join(found))
