"""The efficiency record: one model, all pruners and budgets of one run, measured turn by turn under the same conditions.

It is one JSON file, `*.efficiency.json`, with a checksum, as the records of answers have; these know nothing of it, so that
neither kind can enter the other's tables. A ratio is only ever taken between two rows of one record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt

from vtpbench.harness.host.checksummed import BadRecord, Frozen, dump_checksummed, load_checksummed
from vtpbench.harness.records.names import SuiteName
from vtpbench.harness.records.record import Amount, BudgetInfo, Count, Environment, ModelInfo, Observed, PrunerInfo

SCHEMA_VERSION = 1
SUFFIX = ".efficiency.json"
PLACE = "efficiency"
"""Folder among the results in which each suite has its own."""
STAGES = ("preprocess", "vision", "pruner", "projector", "prefill", "decode")
"""In the order in which they begin; their times are disjoint and sum to the whole."""
BEFORE_FIRST_TOKEN = STAGES[:-1]
ON_DEVICE = BEFORE_FIRST_TOKEN[1:]
"""What the device does before the first token; pictures are made ready by the host."""


class Ceilings(Frozen):
    """What the device does at best, measured in the same run."""

    tflops_per_s: Amount
    """Of a large matrix product in the model's number format; 10^12 operations."""
    gb_per_s: Amount
    """What a large copy reads and writes together; 10^9 bytes."""


class StageWork(Frozen):
    """What one stage gave the device to do, for the whole batch, in one run that was watched."""

    device_ms: Amount
    """Time of all kernels, copies and fills together; on a CPU that of torch's operators."""
    launches: Count
    """How many of them."""
    moved_bytes: Amount
    """Operands and results of every operation, once each."""


NOTHING = StageWork(device_ms=0, launches=0, moved_bytes=0)


class Load(Frozen):
    """What every row had to do."""

    batch: PositiveInt
    """Prompts at once, one picture each; times are of the whole batch."""
    picture: tuple[Count, Count]
    """Width and height, pixels."""
    new_tokens: PositiveInt
    """Tokens that are generated, the first by the prefill."""
    warmup: Count
    repeats: Count
    """0 = operations were counted, and nothing was run against the clock."""
    graphs: bool = False
    """Whether tower, prefill and decoding steps were replayed as CUDA graphs, where they could be captured."""


class Machine(Frozen):
    """The machine that a profile ran on."""

    environment: Environment
    driver: str | None
    """Of the GPU."""
    threads: Count
    """Of the CPU, for one operation."""


class FlopsInfo(Frozen):
    """Operations for one prompt; see `harness/efficiency/flops.py`."""

    vision: Amount
    pruner: Amount
    projector: Amount
    prefill: list[Amount]
    """Each decoder layer."""
    head: Amount
    decode: Amount
    """All tokens after the first."""

    def of(self, stages: tuple[str, ...]) -> float:
        """Operations of several stages together; `lm_head` for the first token is part of the prefill."""
        by_stage = {
            "vision": self.vision,
            "pruner": self.pruner,
            "projector": self.projector,
            "prefill": sum(self.prefill) + self.head,
            "decode": self.decode,
        }
        return sum(by_stage.get(stage, 0.0) for stage in stages)


class Measured(Frozen):
    """One pruner at one budget."""

    pruner: PrunerInfo
    budget: BudgetInfo
    status: Literal["ok", "infeasible", "unsupported", "failed"] = "ok"
    reason: str | None = None
    """Why the status is not ok; everything below is then empty."""
    observed: Observed | None = None
    text_tokens: Count = 0
    times_ms: dict[str, list[Amount]] = Field(default_factory=dict)
    """By stage, one value for each repeat, for the whole batch; `decode` is all tokens after the first."""
    masked_layers: Count = 0
    """Decoder layers whose prefill got an explicit attention mask; such a layer may run another kernel."""
    kv_bytes: Count = 0
    """Of the key-value cache after the prefill, for the whole batch."""
    peak_bytes: Count | None = None
    """Most memory on the device at once, weights included; None = not measured."""
    flops: dict[str, FlopsInfo] = Field(default_factory=dict)
    """By convention: `exact`, `table4`."""
    work: dict[str, StageWork] = Field(default_factory=dict)
    """By stage; empty = not watched."""
    joules: Amount | None = None
    """Energy of the GPU for one question, end to end; None = its driver does not say."""
    replayed: list[str] = Field(default_factory=list)
    """Passes of the row that were CUDA graphs, by their names."""
    not_replayed: dict[str, str] = Field(default_factory=dict)
    """Those that were not although graphs were asked for, with the reason."""

    def summed_ms(self, stages: tuple[str, ...] = STAGES) -> list[float]:
        """Time of several stages together, for each repeat."""
        return [sum(parts) for parts in zip(*(self.times_ms.get(stage, ()) for stage in stages), strict=True)]

    def summed_work(self, stages: tuple[str, ...]) -> StageWork | None:
        """Work of several stages together; None where nobody watched."""
        if not self.work:
            return None
        parts = [self.work[stage] for stage in stages]
        return StageWork(
            device_ms=sum(part.device_ms for part in parts),
            launches=sum(part.launches for part in parts),
            moved_bytes=sum(part.moved_bytes for part in parts),
        )


class EfficiencyRecord(Frozen):
    """One run on one model; the first row is vanilla."""

    schema_version: int = SCHEMA_VERSION
    suite: SuiteName
    model: ModelInfo
    load: Load
    machine: Machine
    rows: list[Measured]
    ceilings: Ceilings | None = None
    """None = not measured."""
    created: str
    """UTC, ISO 8601."""

    @property
    def id(self) -> str:
        """Hash of what was measured and on what, not of the result: measuring the same again replaces the record.

        It ends the file's name, and is no part of what is stored. The commit is left out: versions hold the hash of the code.
        """
        facts = {
            "model": self.model.model_dump(mode="json"),
            "load": self.load.model_dump(mode="json", exclude=set() if self.load.graphs else {"graphs"}),
            "machine": self.machine.model_dump(mode="json", exclude={"environment": {"git_commit"}}),
            "rows": [[row.pruner.model_dump(mode="json"), row.budget.model_dump(mode="json")] for row in self.rows],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def dump(self) -> str:
        """Serialise with the checksum; the same record gives the same text."""
        return dump_checksummed(self)


def load_efficiency(path: Path) -> EfficiencyRecord:
    """Read one file; raises `BadRecord` where it is truncated, edited, of another schema, or lacks what every table needs."""
    record = load_checksummed(path, EfficiencyRecord, SCHEMA_VERSION)
    first = next(iter(record.rows), None)
    if first is None or first.pruner.name != "vanilla" or first.status != "ok":
        raise BadRecord(f"{path}: the first row is not vanilla, measured; nothing can be compared with it")
    for row in record.rows:
        if row.status == "ok" and not _is_complete(row, record.load.repeats):
            raise BadRecord(f"{path}: the row {row.pruner.label} @ {row.budget.label} is incomplete")
    return record


def _is_complete(row: Measured, repeats: int) -> bool:
    """Whether a row has all that a table shows of it."""
    counted = row.observed is not None and {"exact", "table4"} <= row.flops.keys()
    timed = [len(row.times_ms.get(stage, ())) for stage in STAGES] == [repeats] * len(STAGES)
    watched = not row.work or row.work.keys() == set(STAGES)
    return counted and timed and watched and (not repeats or all(ms > 0 for ms in row.summed_ms(BEFORE_FIRST_TOKEN)))


def find_efficiency(folder: Path, warn: Callable[[str], None]) -> list[EfficiencyRecord]:
    """Read all efficiency records below a folder, or the one file; those that cannot be trusted are skipped with a warning."""
    found = []
    for path in [folder] if folder.is_file() else sorted(folder.rglob(f"*{SUFFIX}")):
        try:
            found.append(load_efficiency(path))
        except BadRecord as e:
            warn(f"{e}; it is skipped")
    return found
