"""Hand-built records: a small matrix of one model, in which every kind of cell occurs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import pytest

from vtpbench.harness.records.efficiency import STAGES, EfficiencyRecord, FlopsInfo, Load, Machine, Measured
from vtpbench.harness.records.record import (
    BatchInfo,
    BenchmarkInfo,
    BudgetInfo,
    Environment,
    ModelInfo,
    Observed,
    PrunerInfo,
    Record,
)

VERSIONS = {"vtpbench": "0.1.0", "lmms-eval": "0.7.3", "transformers": "5.23.0", "torch": "2.12.0", "python": "3.11.9"}
MakeRecord = Callable[..., Record]


def make_record(
    pruner: str = "random",
    benchmark: str = "GQA",
    score: float | None = 50.0,
    *,
    tokens: int | None = 16,
    ratio: float | None = None,
    label: str | None = None,
    options: dict[str, Any] | None = None,
    seed: int = 0,
    status: str = "ok",
    reason: str | None = None,
    limit: int | None = None,
    batch: int | None = 16,
    created: str = "2026-01-01T00:00:00+00:00",
    versions: dict[str, str] | None = None,
    model: dict[str, Any] | None = None,
    observed: float | None = None,
) -> Record:
    if pruner == "vanilla":
        tokens, ratio = None, None
    seen = observed if observed is not None else 144.0 if pruner == "vanilla" else float(tokens or 144 * (ratio or 0))
    facts: dict[str, Any] = {
        "suite": "demo",
        "status": status,
        "reason": reason,
        "model": ModelInfo(
            **{
                "label": "tiny-llava",
                "id": "suites/demo/model",
                "family": "llava",
                "weights": "0123456789abcdef",
                "dtype": "float32",
                "attention": "sdpa",
                "preprocessing": "crop",
                "prompt": "vicuna_v1",
                "vision_tokens": 144,
                **(model or {}),
            }
        ),
        "pruner": PrunerInfo(
            name=pruner, label=label or pruner, options=options or {}, code=f"code-of-{pruner}", distribution="vtpbench"
        ),
        "budget": BudgetInfo(tokens=tokens, ratio=ratio),
        "benchmark": BenchmarkInfo(
            label=benchmark,
            task=f"demo_{benchmark.lower()}",
            metric="exact_match",
            scale=100,
            split="test",
            limit=limit,
            dataset=f"data-of-{benchmark}",
            generation={"max_new_tokens": 16},
        ),
        "seed": seed,
        "score": score if status == "ok" else None,
        "stderr": 3.2 if status == "ok" else None,
        "n": limit or 240 if status == "ok" else 0,
        "observed": Observed(tokens=seen, original=144.0, per_layer=[seen], images=80) if status == "ok" else None,
        "batch": None if batch is None else BatchInfo(requested=batch, smallest=batch),
        "environment": Environment(versions=versions or VERSIONS, device="cpu", platform="linux", git_commit=None),
        "created": created,
    }
    identity = repr([facts[key] for key in ("model", "pruner", "budget", "benchmark", "seed", "batch")]) + repr(versions)
    return Record(cell_id=sha256(identity.encode()).hexdigest()[:16], **facts)


@pytest.fixture
def record() -> MakeRecord:
    return make_record


def make_profiled(model: str = "tiny-llava", batch: int = 1, **pruners: Sequence[int]) -> EfficiencyRecord:
    """Efficiency record: vanilla, and each pruner at its budgets; one without a budget cannot reach 16."""
    info = make_record(model={"label": model, "weights": "dummy"}).model
    environment = Environment(versions={"torch": "2.12.0"}, device="cpu", platform="linux", git_commit=None)
    rows = [_measured("vanilla", None)]
    for name, budgets in pruners.items():
        rows += [_measured(name, tokens) for tokens in budgets] or [
            Measured(pruner=_pruner(name), budget=BudgetInfo(tokens=16), status="infeasible", reason="too small")
        ]
    return EfficiencyRecord(
        suite="tiny",
        model=info,
        load=Load(batch=batch, picture=(64, 48), new_tokens=5, warmup=1, repeats=3),
        machine=Machine(environment=environment, driver=None, threads=1),
        rows=rows,
        created="2026-01-01T00:00:00+00:00",
    )


def _measured(name: str, tokens: int | None) -> Measured:
    seen = float(tokens or 144)
    flops = FlopsInfo(vision=1e12, pruner=2e9, projector=0, prefill=[1e12, 1e12], head=0, decode=1e9)
    return Measured(
        pruner=_pruner(name),
        budget=BudgetInfo(tokens=tokens),
        observed=Observed(tokens=seen, original=144.0, per_layer=[seen], images=1),
        text_tokens=32,
        times_ms={stage: [2.0 + (seen if stage == "prefill" else 0.0)] * 3 for stage in STAGES},
        kv_bytes=3 << 20,
        flops={"exact": flops, "table4": flops},
    )


def _pruner(name: str) -> PrunerInfo:
    return PrunerInfo(name=name, label=name, options={}, code="", distribution="vtpbench")


@pytest.fixture
def profiled() -> Callable[..., EfficiencyRecord]:
    return make_profiled


@pytest.fixture
def matrix() -> list[Record]:
    """Vanilla, random with three seeds, and FastV, at a count and a ratio; MME-like scores; every way not to have a score."""
    scores = {"GQA": (86.25, 60.0), "MME": (1862.4, 1612.0), "POPE": (90.0, 72.0)}
    records = []
    for benchmark, (vanilla, pruned) in scores.items():
        records.append(make_record("vanilla", benchmark, vanilla))
        records += [make_record("random", benchmark, pruned + 2 * s, seed=s) for s in range(3)]
        records.append(make_record("random", benchmark, pruned + 6, tokens=None, ratio=1 / 3))
    return [
        *records,
        make_record("fastv", "GQA", 73.4, label="FastV", tokens=None, ratio=1 / 3, options={"layer": 2}),
        make_record("fastv", "MME", status="failed", label="FastV", tokens=None, ratio=1 / 3, options={"layer": 2},
                    reason="Traceback (most recent call last):\n  File ...\nRuntimeError: out of memory"),
        *[
            make_record("fastv", benchmark, status="infeasible", label="FastV", options={"layer": 2}, batch=None,
                        reason="16 of 144 is below the 36 that two full layers of 8 cost")
            for benchmark in scores
        ],
    ]  # fmt: skip
