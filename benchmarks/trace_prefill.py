"""Show what each pruner gives a GPU to do before the first token, stage by stage, and what makes the host wait for it.

On a GPU torch's profiler watches LLaVA-1.5-7B with random weights: what it launches, and every call of CUDA's runtime that
synchronises, with the line of Python that it comes from; `--traces FOLDER` keeps the traces for a viewer (chrome://tracing,
Perfetto). Without one the GPU is pretended (`pretended_gpu`), and a model of random weights has all
its layers and tokens, but narrow ones: neither launches nor waits depend on the width.

    python benchmarks/trace_prefill.py
    python benchmarks/trace_prefill.py --pruner fastv --budget 64 --traces traces
    python benchmarks/trace_prefill.py --device cpu
    python benchmarks/trace_prefill.py --device cpu --model dummy:llava-next-7b --budget 320
    python benchmarks/trace_prefill.py --device cpu --model dummy:qwen2.5-vl-7b --budget 64
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pruner_options import OPTIONS, QWEN_OPTIONS
from rehearsal import rehearse
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from vtpbench.harness.efficiency.activity import END, Span, by_stage, traced
from vtpbench.harness.efficiency.options import TEXT_TOKENS
from vtpbench.harness.efficiency.profiled_model import describe, open_for_speed
from vtpbench.harness.efficiency.stages import Prompts, PrunerAtBudget, run
from vtpbench.harness.host.device import open_device
from vtpbench.harness.models import configs
from vtpbench.harness.models.dummy import filler, noise_picture
from vtpbench.harness.models.family import Family
from vtpbench.harness.models.tiny import beside_text_tower
from vtpbench.harness.records.efficiency import STAGES
from vtpbench.harness.records.record import BudgetInfo
from vtpbench.harness.suite.options import NEUTRAL, model_path
from vtpbench.harness.suite.specs import DUMMY_PREFIX, ModelSpec
from vtpbench.pruners.errors import Infeasible, Unsupported
from vtpbench.pruners.registry import BUILT_IN, build
from vtpbench.pruners.transfer import STAGED_BYTES

SYNCHRONISING = re.compile(r"cuda(Stream|Device|Event)Synchronize|cu(Stream|Ctx|Event)Synchronize|cudaMemcpy")
"""Calls of the runtime, or of the driver, that wait; a version may follow the name, as in `cudaMemcpy_v3020`."""
VERSION = re.compile(r"(_ptds|_ptsz)?(_v\d+)?")
LINE = re.compile(r"(?P<file>.*\.py)\((?P<line>\d+)\): (?P<function>.*)")
"""How the profiler names a frame of Python."""
Waits = Counter[tuple[str, str]]
"""What waits and where, with how often."""


@dataclass(frozen=True)
class Look:
    """Of one pruner: what waits between the tower and the first token, and what each stage launches."""

    waits: Waits
    launched: Counter[str]


def open_model(name: str, device: torch.device) -> tuple[Family, str]:
    """Open a model and word a question for it."""
    with tempfile.TemporaryDirectory() as scratch:
        if device.type == "cpu" and name.startswith(DUMMY_PREFIX):
            name = DUMMY_PREFIX + str(narrowed(name.removeprefix(DUMMY_PREFIX), Path(scratch)))
        spec = ModelSpec(path=model_path(name), label=name)
        family = open_for_speed(describe(spec, "bfloat16", "sdpa"), device)
    if family.shape.has_cls and name.startswith(DUMMY_PREFIX):
        beside_text_tower(family, layers=12)  # as deep as that of openai/clip-vit-large-patch14-336
    return family, filler(family, TEXT_TOKENS) if name.startswith(DUMMY_PREFIX) else NEUTRAL


def narrowed(name: str, folder: Path) -> Path:
    """Write a configuration with all layers and tokens of one that comes with vtpbench, a quarter of its heads, 16 wide."""
    config = json.loads((Path(str(configs.__file__)).parent / f"{name}.json").read_text())
    text, vision = config["text_config"], config["vision_config"]
    heads = text["num_attention_heads"] // 4
    text.update(num_attention_heads=heads, num_key_value_heads=max(1, text["num_key_value_heads"] // 4))
    text.update(hidden_size=16 * heads, head_dim=16, intermediate_size=128)
    if "mrope_section" in text["rope_parameters"]:
        text["rope_parameters"]["mrope_section"] = [2, 3, 3]
    vision.update(hidden_size=64, intermediate_size=128, projection_dim=64, out_hidden_size=text["hidden_size"])
    vision["num_heads" if "num_heads" in vision else "num_attention_heads"] = 4
    file = folder / f"{name}-narrow.json"
    file.write_text(json.dumps(config))
    return file


def look(subject: PrunerAtBudget, prompts: Prompts, trace: Path) -> Look:
    """Watch, in the way that the device allows; on a GPU the trace is written."""
    return profiled(subject, prompts, trace) if subject.family.device.type == "cuda" else pretended(subject, prompts)


def pretended(subject: PrunerAtBudget, prompts: Prompts) -> Look:
    """Watch on a pretended GPU."""
    seen = rehearse(subject, prompts)
    waits = Counter((wait.what, f"{wait.module}:{wait.line} {wait.function}") for wait in seen.waits)
    return Look(waits, seen.launched)


def profiled(subject: PrunerAtBudget, prompts: Prompts, trace: Path) -> Look:
    """Watch on a GPU, and write the trace."""
    for _ in range(2):  # what is made once, and memory
        run(subject, prompts, lambda stage: None)

    spans = traced(lambda mark: run(subject, prompts, mark), trace, with_stack=True)
    launched = Counter({stage: activity.launches for stage, activity in by_stage(spans).items()})
    return Look(synchronisations(spans), launched)


def synchronisations(spans: list[Span]) -> Waits:
    """Find calls that wait between the last mark of the tower and the last one of the prefill."""
    begin, end = (max(e["ts"] for e in spans if e["name"] == END + stage) for stage in ("vision", "prefill"))
    frames = [event for event in spans if event.get("cat") == "python_function" and LINE.match(event["name"])]
    staged = {_details(event).get("correlation") for event in spans if _is_staged(event)}
    calls = [event for event in spans if begin <= event["ts"] <= end and event["name"].startswith("cu")]
    waiting = [call for call in calls if _names(SYNCHRONISING, call) or _details(call).get("correlation") in staged]
    return Counter((call["name"], _place(call, frames)) for call in waiting)


def _names(calls: re.Pattern[str], event: Span) -> bool:
    found = calls.match(event["name"])
    return found is not None and VERSION.fullmatch(event["name"], found.end()) is not None


def _is_staged(event: Span) -> bool:
    """Whether an event of the device is a copy that the driver had to stage, for which an asynchronous call waits, too."""
    copied = event.get("cat") == "gpu_memcpy" and "Pageable -> Device" in event["name"]
    return copied and int(_details(event).get("bytes", 0)) > STAGED_BYTES


def _details(event: Span) -> dict[str, Any]:
    return event.get("args") or {}


def _place(call: dict[str, Any], frames: list[Span]) -> str:
    """Name the innermost frame outside torch that was running."""
    around = [f for f in frames if f["tid"] == call["tid"] and f["ts"] <= call["ts"] <= f["ts"] + f["dur"]]
    outside = [f for f in around if "/torch/" not in f["name"] and "contextlib" not in f["name"]]
    innermost = min(outside or around, key=lambda f: f["dur"], default=None)
    return "?" if innermost is None else innermost["name"]


def show(found: dict[str, Look]) -> None:
    """Print a table, and for what each pruner waits; places that all of them share stand once."""
    table = Table("Pruner", *STAGES, "waits", box=MARKDOWN)
    for column in table.columns[1:]:
        column.justify = "right"
    shared = set.intersection(*(set(seen.waits) for seen in found.values()))
    for name, seen in found.items():
        own = sum(count for key, count in seen.waits.items() if key not in shared)
        table.add_row(name, *(str(seen.launched[stage]) for stage in STAGES), str(own))
    Console(width=130).print(table)
    for name, line in _places(found, shared):
        print(f"{name:12} {line}")


def _places(found: dict[str, Look], shared: set[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for name, seen in found.items():
        for (what, where), count in sorted(seen.waits.items()):
            if (what, where) not in shared:
                yield name, f"{count} x {what}: {where}"
    for what, where in sorted(shared):
        most = max(seen.waits[what, where] for seen in found.values())
        yield "every row", f"{most} x {what}: {where}"


def main() -> None:
    """Watch every pruner and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=f"{DUMMY_PREFIX}llava-1.5-7b", help="as for `vtpbench profile`")
    parser.add_argument("--pruner", action="append", choices=sorted(BUILT_IN), help="by default every one")
    parser.add_argument("--budget", type=int, default=64)
    parser.add_argument("--device")
    parser.add_argument("--traces", type=Path, help="folder; on a GPU only")
    arguments = parser.parse_args()
    device = open_device(arguments.device)
    family, question = open_model(arguments.model, device)
    prompts = Prompts([noise_picture(336, 336)], question, 2)
    where = device if device.type == "cuda" else "a pretended GPU"
    print(f"{arguments.model} on {where}, torch {torch.__version__}, one picture, {arguments.budget} tokens: launched by stage")
    options = OPTIONS if arguments.model.startswith(DUMMY_PREFIX) else {}
    options = {**options, **(QWEN_OPTIONS if family.shape.multi_axis_positions else {})}
    found: dict[str, Look] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.traces or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for pruner in arguments.pruner or BUILT_IN:
            budget = BudgetInfo() if pruner == "vanilla" else BudgetInfo(tokens=arguments.budget)
            subject = PrunerAtBudget(family, build(pruner, options.get(pruner, {})), budget)
            try:
                found[pruner] = look(subject, prompts, folder / f"{pruner}.json")
            except (Infeasible, Unsupported) as e:
                print(f"{pruner:12} {type(e).__name__.lower()}: {e}")
    if found:
        show(found)


if __name__ == "__main__":
    main()
