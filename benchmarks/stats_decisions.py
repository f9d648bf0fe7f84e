"""How often tests and decisions of reports are wrong, and how often they find what is there: simulated, the truth being known.

Rows answer the questions of several benchmarks with true rates. On some questions two rows share their luck, so that they
disagree on few, as pruners of one model do. Error rates: a difference claimed where there is none, a best row left out, a row
"within" the margin that lies on it. Power: the same claims where they are true.

    python benchmarks/stats_decisions.py
    python benchmarks/stats_decisions.py --scenario ceiling
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vtpbench.report.stats.bootstrap import replicate
from vtpbench.report.stats.draws import Draws, average, difference, draws, p_value, relative
from vtpbench.report.stats.margin import decide, unseen_loss
from vtpbench.report.stats.max_t import may_be_best, step_down
from vtpbench.report.stats.smallest import smallest_difference
from vtpbench.report.stats.sums import Sums

ALPHA = 0.05
MARGIN = 2.0
"""Per cent of vanilla."""


@dataclass(frozen=True)
class Scenario:
    """What is measured: questions of each benchmark, one picture each; vanilla's rate; rows, and how alike they answer."""

    questions: tuple[int, ...]
    rate: float
    rows: int
    together: float
    """Share of the questions on which all rows have the same luck."""

    def discordance(self, ratio: float) -> float:
        """Share of the questions on which a row like vanilla disagrees with one of a true relative accuracy."""
        one, other = self.rate, ratio * self.rate
        apart = one * (1 - other) + other * (1 - one)
        return self.together * abs(one - other) + (1 - self.together) * apart

    @property
    def smallest(self) -> float:
        """Smallest difference from a row like vanilla that is likely to be seen, per cent; it adds to the discordance itself."""
        found, n = 0.0, len(self.questions)
        for _ in range(50):
            at_least = self.discordance(1 - found / 100)
            found = smallest_difference(self.questions, [self.rate] * n, discordance=at_least) or found + 1
        return found


SCENARIOS = {
    "four benchmarks": Scenario((240, 240, 240, 240), 0.8, 15, 0.7),
    "large and small": Scenario((3000, 300, 100), 0.7, 15, 0.7),
    "small": Scenario((80, 80, 80, 80), 0.85, 15, 0.7),
    "ceiling": Scenario((80, 80), 0.96, 15, 0.7),
    "many rows": Scenario((240, 240), 0.8, 50, 0.7),
}


def measure(
    generator: np.random.Generator, scenario: Scenario, ratios: Sequence[float], replicates: int, name: str
) -> list[list[Draws]]:
    """Measure rows once; `ratios` are their true relative accuracies. Replicates by row and benchmark."""
    found: list[list[Draws]] = [[] for _ in ratios]
    rates = scenario.rate * np.array([1.0, *ratios])[:, None]
    for number, n in enumerate(scenario.questions):
        shared, own = generator.random((1, n)), generator.random((len(rates), n))
        right = np.where(generator.random((1, n)) < scenario.together, shared, own) < rates
        units, ones = tuple(f"{name} {number} {i:05}" for i in range(n)), np.ones((n, 1))
        cells = [Sums(units, 0, answers[:, None].astype(float), ones, np.ones((2, 1))) for answers in right]
        names = [f"row {i}" for i in range(len(cells))]
        scores = [draws(column, cell) for column, cell in zip(replicate(names, cells, replicates).T, cells, strict=True)]
        for row, score in zip(found, scores[1:], strict=True):
            row.append(relative(score, scores[0]))
    return found


def minus(one: Sequence[Draws], other: Sequence[Draws]) -> Draws:
    """Paired difference of two rows."""
    return average([difference(a, b) for a, b in zip(one, other, strict=True)])


def holm(values: Sequence[float]) -> list[float]:
    """Correct p-values for their number.

    Source: Holm, A simple sequentially rejective multiple test procedure (Scandinavian Journal of Statistics 6, 1979).
    """
    order = np.argsort(values, kind="stable")
    steps = np.asarray(values)[order] * np.arange(len(values), 0, -1)
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return [float(p) for p in corrected]


def claims(rows: Sequence[Sequence[Draws]]) -> dict[str, list[bool]]:
    """Which rows are said to differ from the first, by each correction."""
    differences = [minus(row, rows[0]) for row in rows[1:]]
    by_number = holm([p_value(d) for d in differences])
    return {"Holm": [p < ALPHA for p in by_number], "max-T": [p < ALPHA for p in step_down(differences)]}


def best(rows: Sequence[Sequence[Draws]]) -> list[bool]:
    """Which rows may be the best."""
    return [may_be_best([minus(other, row) for other in rows if other is not row]) for row in rows]


def simulate(scenario: Scenario, experiments: int, replicates: int, seed: int) -> dict[str, float]:
    """Share of the experiments in which something is claimed; of several rows, of the mean number of them."""
    generator = np.random.default_rng(seed)
    n = scenario.rows
    worse = 1 - scenario.smallest / 100
    unseen = unseen_loss(scenario.questions, [scenario.rate] * len(scenario.questions))
    equal, unequal = [0.97] * n, [1.0] + [worse] * (n // 2) + [1.0] * (n - 1 - n // 2)
    one_best, spread = [1.0] + [0.99] * (n - 1), np.linspace(1.0, 0.9, n)
    counts: dict[str, float] = defaultdict(float)
    for i in range(experiments):
        name = f"{seed} {i}"
        for kind, found in claims(measure(generator, scenario, equal, replicates, name)).items():
            counts[f"equal rows: any claim, {kind}"] += any(found)
        for kind, found in claims(measure(generator, scenario, unequal, replicates, name)).items():
            counts[f"half worse: any false claim, {kind}"] += any(found[n // 2 :])
            counts[f"half worse: found, {kind}"] += float(np.mean(found[: n // 2]))
        counts["one best: left out"] += not best(measure(generator, scenario, one_best, replicates, name))[0]
        among = best(measure(generator, scenario, [*spread], replicates, name))
        counts["spread rows: best left out"] += not among[0]
        counts["spread rows: share kept"] += float(np.mean(among))
        truths = [1 - MARGIN / 100, 1.0, 1 - 3 * MARGIN / 100, worse]
        edge, good, bad, near = measure(generator, scenario, truths, replicates, name)
        at_edge, as_good, as_bad = (decide(average(row), MARGIN, unseen) for row in (edge, good, bad))
        counts["on the margin: within"] += at_edge == "within"
        counts["on the margin: below"] += at_edge == "below"
        counts["like vanilla: within"] += as_good == "within"
        counts["three margins worse: below"] += as_bad == "below"
        counts["smallest difference: seen"] += p_value(minus(near, good)) < ALPHA
    return {name: count / experiments for name, count in counts.items()}


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=400)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--scenario", choices=SCENARIOS, action="append", help="by default all")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name in arguments.scenario or SCENARIOS:
        start = time.perf_counter()
        found = simulate(SCENARIOS[name], arguments.experiments, arguments.replicates, arguments.seed)
        print(f"{name}: {SCENARIOS[name]}, smallest difference {SCENARIOS[name].smallest:.1f} %")
        for what, share in found.items():
            print(f"    {what:40} {100 * share:6.1f} %")
        print(f"    {arguments.experiments} experiments, {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
