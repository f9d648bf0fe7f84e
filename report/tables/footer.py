"""The footer: what a reader must know of the runs behind a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vtpbench.harness.records.record import CODE, FIXED_DIVISORS, Record
from vtpbench.pruners.errors import UserError, did_you_mean
from vtpbench.report.tables.conventions import BEST

TIED = "†"
"""Behind the average of a row that cannot be told apart from the best of its block."""
NOT_BETTER = "‡"
"""Behind the average of a row that cannot be told apart from the reference row of its block."""
SPREAD = " (± = standard deviation over seeds)"

READING = ("Cells", "Avg", "Interval", TIED, NOT_BETTER, "Tokens")
"""Lines that a reader of the numbers needs; the others say where they come from."""
DETAILS = ("full", "short", "none")


def shorten(lines: Sequence[tuple[str, str]], detail: str) -> tuple[tuple[str, str], ...]:
    """Leave of a footer what `detail` says: all, what is needed to read the numbers, or nothing.

    Raises
    ------
    UserError
        There is no such detail.

    """
    if detail not in DETAILS:
        raise UserError(f"unknown footer '{detail}'; {did_you_mean(detail, DETAILS)}")
    kept = {"full": lines, "short": [(name, text) for name, text in lines if name in READING], "none": ()}
    return tuple(kept[detail])


def footer(records: Sequence[Record], columns: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Name and text of each line, benchmarks first."""
    model = records[0].model
    tower = "" if model.tower is None else f", vision tower {model.tower[:12]}"
    return (
        ("Cells", "score, and below it the relative accuracy: score / vanilla score of the same setting, in %"),
        ("Avg", "mean of the unrounded relative accuracies over n benchmarks; averages over different benchmarks do not compare"),
        ("Tokens", "vision tokens that entered a decoder layer, as observed: mean over layers, images and benchmarks"),
        *((column, _benchmark([r for r in records if r.benchmark.label == column])) for column in columns),
        (
            "Model",
            f"{model.id} ({model.family}), weights {model.weights[:12]}{tower}, {model.dtype}, attention {model.attention}, "
            f"preprocessing {model.preprocessing}, prompt {model.prompt}",
        ),
        ("Seeds", _seeds(records)),
        ("Engine", _engine(records)),
    )


def explain(lines: Sequence[tuple[str, str]], marks: str, reference: str, replicates: int) -> tuple[tuple[str, str], ...]:
    """Add what intervals and the marks that occur mean to the lines of a footer."""
    test = "paired bootstrap of the benchmarks that both have, 95 % for all rows of the block together"
    other = "that row" if reference == BEST else reference
    meanings = {
        TIED: f"cannot be told apart from the row of its block with the highest Avg: {test}",
        NOT_BETTER: f"cannot be told apart from {other}: the same test, all rows against it",
    }
    interval = "Avg ± half of its 95 % interval, vanilla's error included: paired bootstrap over images"
    of_seeds = "; other seeds included where several were run" if any(SPREAD in text for _, text in lines) else ""
    added = (
        ("Interval", f"{interval}, {replicates} replicates{of_seeds}"),
        *((mark, meaning) for mark, meaning in meanings.items() if mark in marks),
    )
    found: list[tuple[str, str]] = []
    for name, text in lines:
        seeds = text.replace(SPREAD, " (± of a score, and below Avg: standard deviation over seeds)") if name == "Seeds" else text
        found += [(name, seeds), *(added if name == "Avg" else ())]
    return tuple(found)


def _benchmark(records: Sequence[Record]) -> str:
    info = records[0].benchmark
    scale = "" if info.scale == 1 else f"{info.scale:g} \N{MULTIPLICATION SIGN} "
    drawn = "" if info.draw is None else f", drawn by seed {info.draw.seed}"
    limit = "" if info.limit is None else f" (limit {info.limit}{drawn})"
    n = _listed(sorted({r.n for r in records if r.score is not None})) or "no"
    profile = "" if info.profile is None else f", profile {info.profile}"
    less = "" if info.higher_is_better else ", lower is better: relative accuracy is 200 - 100 x score / vanilla score, in %"
    divisors = {FIXED_DIVISORS[term] for term in info.terms if term in FIXED_DIVISORS} - {r.n for r in records}
    fewer = "".join(f", divided by the samples where the task divides by {divisor}" for divisor in divisors)
    samples = f"{n} samples{limit}{_left_out(records)}{fewer}"
    return f"{scale}{info.metric} of {info.task}, split {info.split}, {samples}, data {info.dataset[:12]}{profile}{less}"


def _left_out(records: Sequence[Record]) -> str:
    """Say how many questions are missing because they cannot be asked, and what is wrong with the first of them."""
    counts = sorted({len(r.skipped) for r in records if r.score is not None} - {0})
    if not counts:
        return ""
    sample, problem = next(iter(next(r.skipped for r in records if r.skipped).items()))
    return f", {_listed(counts)} questions left out that cannot be asked (such as {sample}: {problem})"


def _seeds(records: Sequence[Record]) -> str:
    by_label: dict[str, set[int]] = {}
    for record in records:
        by_label.setdefault(record.pruner.label, set()).add(record.seed)
    sets = {_listed(sorted(seeds)): len(seeds) for seeds in by_label.values()}
    owners = {seeds: sorted(label for label, own in by_label.items() if _listed(sorted(own)) == seeds) for seeds in sets}
    text = next(iter(owners)) if len(owners) == 1 else "; ".join(f"{', '.join(owners[s])}: {s}" for s in sorted(owners))
    return text + SPREAD if max(sets.values()) > 1 else text


def _engine(records: Sequence[Record]) -> str:
    versions = [r.environment.versions for r in records]
    names = sorted({name for own in versions for name in own} - {CODE})
    found = [f"{name} {_listed({own[name] for own in versions if name in own})}" for name in names]
    devices = _listed({r.environment.device for r in records})
    return ", ".join([*found, f"on {devices}", *_batch(records)])


def _batch(records: Sequence[Record]) -> list[str]:
    batches = [r.batch for r in records if r.batch is not None]
    if not batches:
        return []
    requested, smallest = max(b.requested for b in batches), min(b.smallest for b in batches)
    short = f" (down to {smallest} where memory ran out)" if smallest < requested else ""
    return [f"batch size {requested}{short}"]


def _listed(values: Iterable[object]) -> str:
    """Join values, those of a set by alphabet."""
    return ", ".join(map(str, sorted(values, key=str) if isinstance(values, set) else values))
