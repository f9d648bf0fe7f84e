"""List what makes the host wait for the GPU between the vision tower and the first token, pruner by pruner.

On a GPU torch's profiler watches LLaVA-1.5-7B with random weights: every call of CUDA's runtime that synchronises, with the
line of Python that it comes from; `--traces FOLDER` keeps the traces for a viewer (chrome://tracing, Perfetto). On a CPU
`vtpbench.harness.efficiency.waits` watches the embedded model and lists what would wait.

    python benchmarks/trace_prefill.py
    python benchmarks/trace_prefill.py --pruner fastv --budget 64 --traces traces
    python benchmarks/trace_prefill.py --device cpu
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, record_function

from vtpbench.harness.device import open_device
from vtpbench.harness.efficiency.order import PREFIX, TEXT_TOKENS, describe, open_for_speed
from vtpbench.harness.efficiency.stages import Prompts, Subject, run
from vtpbench.harness.efficiency.waits import waits_before_first_token
from vtpbench.harness.models.dummy import filler, noise_picture
from vtpbench.harness.models.family import Family
from vtpbench.harness.options import DEMO, NEUTRAL, default_dtype, model_path
from vtpbench.harness.record import BudgetInfo
from vtpbench.harness.specs import ModelSpec
from vtpbench.pruners.errors import Infeasible, Unsupported
from vtpbench.pruners.registry import BUILT_IN, build
from vtpbench.pruners.sending import STAGED_BYTES

MODELS = {"cuda": f"{PREFIX}llava-1.5-7b", "cpu": DEMO}
BUDGETS = {"cuda": 64, "cpu": 48}
OPTIONS: dict[str, dict[str, Any]] = {"oc-vtp": {"checkpoint": "dummy"}}
"""On a model with random weights."""
SYNCHRONISING = re.compile(r"cuda(Stream|Device|Event)Synchronize|cu(Stream|Ctx|Event)Synchronize|cudaMemcpy")
"""Calls of the runtime, or of the driver, that wait; a version may follow the name, as in `cudaMemcpy_v3020`."""
VERSION = re.compile(r"(_ptds|_ptsz)?(_v\d+)?")
LINE = re.compile(r"(?P<file>.*\.py)\((?P<line>\d+)\): (?P<function>.*)")
"""How the profiler names a frame of Python."""
Waits = Counter[tuple[str, str]]
"""What waits and where, with how often."""


def open_model(name: str, device: torch.device) -> tuple[Family, str]:
    """Open a model and word a question for it."""
    spec = ModelSpec(path=model_path(name), label=name)
    family = open_for_speed(describe(spec, default_dtype(device), "sdpa"), device)
    return family, filler(family, TEXT_TOKENS) if name.startswith(PREFIX) else NEUTRAL


def look(subject: Subject, prompts: Prompts, trace: Path) -> Waits:
    """List what waits, in the way that the device allows; on a GPU the trace is written."""
    return profiled(subject, prompts, trace) if subject.family.device.type == "cuda" else watched(subject, prompts)


def watched(subject: Subject, prompts: Prompts) -> Waits:
    """List what would wait."""
    waits = waits_before_first_token(subject, prompts)
    return Counter((wait.what, f"{wait.module}:{wait.line} {wait.function}") for wait in waits)


def profiled(subject: Subject, prompts: Prompts, trace: Path) -> Waits:
    """List what waited, and write the trace."""
    for _ in range(2):  # what is made once, and memory
        run(subject, prompts, lambda stage: None)

    def mark(stage: str) -> None:
        with record_function(f"end of {stage}"):
            pass

    with torch.profiler.profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], with_stack=True) as profiler:
        run(subject, prompts, mark)
    profiler.export_chrome_trace(str(trace))
    return synchronisations(json.loads(trace.read_text())["traceEvents"])


def synchronisations(events: list[dict[str, Any]]) -> Waits:
    """Find calls that wait between the last mark of the tower and the last one of the prefill."""
    spans = [event for event in events if event.get("ph") == "X"]
    begin, end = (max(e["ts"] for e in spans if e["name"] == f"end of {stage}") for stage in ("vision", "prefill"))
    frames = [event for event in spans if event.get("cat") == "python_function" and LINE.match(event["name"])]
    staged = {_details(event).get("correlation") for event in spans if _is_staged(event)}
    calls = [event for event in spans if begin <= event["ts"] <= end and event["name"].startswith("cu")]
    waiting = [call for call in calls if _synchronises(call["name"]) or _details(call).get("correlation") in staged]
    return Counter((call["name"], _place(call, frames)) for call in waiting)


def _synchronises(name: str) -> bool:
    found = SYNCHRONISING.match(name)
    return found is not None and VERSION.fullmatch(name, found.end()) is not None


def _is_staged(event: dict[str, Any]) -> bool:
    """Whether an event of the device is a copy that the driver had to stage, for which an asynchronous call waits, too."""
    copied = event.get("cat") == "gpu_memcpy" and "Pageable -> Device" in event["name"]
    return copied and int(_details(event).get("bytes", 0)) > STAGED_BYTES


def _details(event: dict[str, Any]) -> dict[str, Any]:
    return event.get("args") or {}


def _place(call: dict[str, Any], frames: list[dict[str, Any]]) -> str:
    """Name the innermost frame outside torch that was running."""
    around = [f for f in frames if f["tid"] == call["tid"] and f["ts"] <= call["ts"] <= f["ts"] + f["dur"]]
    outside = [f for f in around if "torch/" not in f["name"]]
    return str(max(outside, key=lambda f: f["ts"])["name"]) if outside else "?"


def show(found: dict[str, Waits]) -> None:
    """Print how many waits each pruner has, and for what; places that all of them share stand once."""
    shared = set.intersection(*(set(waits) for waits in found.values()))
    for name, waits in found.items():
        own = {key: count for key, count in waits.items() if key not in shared}
        print(f"{name:12} {sum(own.values())}")
        _show_places(own)
    print(f"{'every row':12} {sum(max(waits[key] for waits in found.values()) for key in shared)}")
    _show_places({key: max(waits[key] for waits in found.values()) for key in shared})


def _show_places(waits: dict[tuple[str, str], int]) -> None:
    for (what, where), count in sorted(waits.items()):
        print(f"    {count} x {what}: {where}")


def main() -> None:
    """Watch every pruner and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="as for `vtpbench profile`")
    parser.add_argument("--pruner", action="append", choices=sorted(BUILT_IN), help="by default every one")
    parser.add_argument("--budget", type=int)
    parser.add_argument("--device")
    parser.add_argument("--traces", type=Path, help="folder; on a GPU only")
    arguments = parser.parse_args()
    device = open_device(arguments.device)
    name, tokens = arguments.model or MODELS[device.type], arguments.budget or BUDGETS[device.type]
    family, question = open_model(name, device)
    prompts = Prompts([noise_picture(336, 336)], question, 2)
    print(f"{name} on {device}, torch {torch.__version__}, one picture, {tokens} tokens; waits of each pruner:")
    found: dict[str, Waits] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.traces or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for pruner in arguments.pruner or BUILT_IN:
            budget = BudgetInfo() if pruner == "vanilla" else BudgetInfo(tokens=tokens)
            subject = Subject(family, build(pruner, OPTIONS.get(pruner, {}) if name.startswith(PREFIX) else {}), budget)
            try:
                found[pruner] = look(subject, prompts, folder / f"{pruner}.json")
            except (Infeasible, Unsupported) as e:
                print(f"{pruner:12} {type(e).__name__.lower()}: {e}")
    if found:
        show(found)


if __name__ == "__main__":
    main()
