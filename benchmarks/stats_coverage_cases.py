"""How often 95 % intervals cover the truth in the cases that are hard for them: each is simulated, the truth being known.

Few questions near a ceiling; rows that lose one question in a hundred and win none; pruners whose seeds matter, as they do not,
and as they do picture by picture; benchmarks of very unlike sizes, the small ones with several questions on few pictures; two
benchmarks that share nine tenths of their photographs. `benchmarks/stats_coverage.py` has the ordinary ones.

    python benchmarks/stats_coverage_cases.py
    python benchmarks/stats_coverage_cases.py --case ceiling --experiments 4000
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.special import ndtr, ndtri

from vtpbench.report.stats.bootstrap import replicate
from vtpbench.report.stats.draws import Draws, average, draws, interval, pooled, relative
from vtpbench.report.stats.metrics import FloatArray
from vtpbench.report.stats.same_pictures import same_pictures
from vtpbench.report.stats.sums import Sums

TOGETHER = 0.8
"""Share of the questions on which all rows have the same luck."""
SEEDS = (
    ("matters much", 0.5, 0.0),
    ("matters", 0.15, 0.0),
    ("matters little", 0.07, 0.0),
    ("matters by picture", 0.0, 0.5),
    ("is nothing", 0.0, 0.0),
)
"""What a seed moves, of a probit: all answers alike, and those on each picture."""
Truths = dict[str, tuple[Draws, float]]
"""Replicates and truth of the numbers of one experiment."""


def cells_of(
    right: FloatArray, units: Sequence[str], names: Sequence[str], replicates: int, same: Mapping[str, str] | None = None
) -> list[Draws]:
    """Measure rows on one benchmark; `right` is their answers, shape (rows, pictures, questions), `units` the pictures."""
    below = np.full((len(units), 1), float(right.shape[2]))
    order = np.argsort(units)  # a cell's units are sorted
    sums = [Sums(tuple(sorted(units)), 0, own.sum(1)[order, None].astype(float), below, np.ones((2, 1))) for own in right]
    scores = replicate(names, sums, replicates, same or {})
    return [draws(column, own) for column, own in zip(scores.T, sums, strict=True)]


def answers(
    generator: np.random.Generator, rates: FloatArray, pictures: int, questions: int = 1, alike: float = 0.0
) -> FloatArray:
    """Whether each answer is right; `rates` of rows, on pictures whose difficulty takes a share `alike` of the variance."""
    shape = (len(rates), pictures, questions)
    shared = np.where(generator.random((1, *shape[1:])) < TOGETHER, generator.standard_normal((1, *shape[1:])), 0)
    luck = np.where(shared == 0, generator.standard_normal(shape), shared)
    difficulty = generator.standard_normal((1, pictures, 1))
    easy = ndtr(np.sqrt(alike) * difficulty + np.sqrt(1 - alike) * luck)
    return easy < np.reshape(rates, (-1, 1, 1))


def pair(
    generator: np.random.Generator,
    name: str,
    rates: Sequence[float],
    pictures: int,
    replicates: int,
    questions: int = 1,
    alike: float = 0.0,
) -> Truths:
    """Measure vanilla and a pruner on one benchmark of independent pictures."""
    right = answers(generator, np.array(rates), pictures, questions, alike)
    vanilla, pruned = cells_of(right, [f"{name} {i}" for i in range(pictures)], ("vanilla", "pruned"), replicates)
    return {"score": (pruned, rates[1]), "relative": (relative(pruned, vanilla), 100 * rates[1] / rates[0])}


def mean_of(parts: Sequence[tuple[Draws, float]]) -> tuple[Draws, float]:
    """Average relative accuracies, and their truths."""
    return average([d for d, _ in parts]), float(np.mean([truth for _, truth in parts]))


def ceiling(generator: np.random.Generator, name: str, replicates: int) -> Truths:
    """Ask 80 questions of which vanilla has 95 to 99 % right."""
    found: Truths = {}
    for rate in (0.93, 0.95, 0.97, 0.99):
        for kind, own in pair(generator, f"{name} {rate}", (rate, 0.98 * rate), 80, replicates).items():
            found[f"80 questions, vanilla {100 * rate:.0f} %: {kind}"] = own
    found["Avg of these four"] = mean_of([own for what, own in found.items() if "relative" in what])
    for kind, own in pair(generator, f"{name} 4", (0.95, 0.93), 20, replicates, questions=4, alike=0.3).items():
        found[f"20 pictures of 4 questions, vanilla 95 %: {kind}"] = own
    return found


def rare_losses(generator: np.random.Generator, name: str, replicates: int) -> Truths:
    """Lose one question in a hundred, and win none or few."""
    found: Truths = {}
    for n in (80, 240, 500, 1000, 3000):
        for won in (0.0, 0.002):
            vanilla = generator.random(n) < 0.8
            luck = generator.random(n)
            pruned = np.where(vanilla, luck >= 0.01 / 0.8, luck < won / 0.2)
            right = np.stack([vanilla, pruned])[:, :, None]
            one, other = cells_of(right, [f"{name} {n} {won} {i}" for i in range(n)], ("vanilla", "pruned"), replicates)
            what = f"{n} questions, 1 % lost, {100 * won:g} % won: relative"
            found[what] = relative(other, one), 100 * (1 + (won - 0.01) / 0.8)
    return found


def seeds(generator: np.random.Generator, name: str, replicates: int) -> Truths:
    """Run three seeds of a pruner, on two benchmarks of 240 questions."""
    found: Truths = {}
    for what, common, own in SEEDS:
        parts = []
        moved = common * generator.standard_normal(3)  # of a probit, the same on both benchmarks
        for number in range(2):
            by_picture = np.sqrt(own) * generator.standard_normal((3, 60, 1))
            difficulty = 0.7 * generator.standard_normal((1, 60, 1)) + generator.standard_normal((1, 60, 4))
            luck = 0.5 * generator.standard_normal((3, 60, 4))
            wide = np.sqrt(1 + 0.49 + 0.25)
            pruned = difficulty + luck + moved[:, None, None] + by_picture > 0
            vanilla = difficulty + 0.5 * generator.standard_normal((1, 60, 4)) + wide * ndtri(0.8) > 0
            units, names = [f"{name} {what} {number} {i}" for i in range(60)], ("vanilla", "0", "1", "2")
            base, *runs = cells_of(np.concatenate([vanilla, pruned]), units, names, replicates)
            mean = pooled("pruned", dict(enumerate(runs)))
            parts.append((relative(mean, base), 100 * 0.5 / 0.8))
        found[f"three seeds, seed {what}: relative"] = parts[0]
        found[f"three seeds, seed {what}: Avg of two"] = mean_of(parts)
    return found


def unlike_sizes(generator: np.random.Generator, name: str, replicates: int) -> Truths:
    """Average benchmarks of unlike sizes."""
    found: Truths = {}
    for pictures, questions, rates in ((1000, 3, (0.7, 0.66)), (300, 1, (0.7, 0.66)), (40, 2, (0.7, 0.66)), (15, 6, (0.8, 0.7))):
        own = pair(generator, f"{name} {pictures}", rates, pictures, replicates, questions=questions, alike=0.3)
        found[f"{pictures} pictures of {questions}: relative"] = own["relative"]
    return {**found, "Avg of these four": mean_of([*found.values()])}


def shared_pictures(generator: np.random.Generator, name: str, replicates: int) -> Truths:
    """Ask two benchmarks about 400 photographs each, 360 of which both have, scaled and compressed anew."""
    difficulty = generator.standard_normal(440)
    looks = generator.integers(0, 2**64, 440, dtype=np.uint64)
    hashes = [{f"{name} {number} {i}": _stored_anew(generator, looks[i]) for i in range(440)} for number in range(2)]
    same = same_pictures(hashes)
    truth = 100 * bivariate(ndtri(0.8), np.sqrt(0.5)) / 0.8
    known: list[tuple[Draws, float]] = []
    unknown: list[tuple[Draws, float]] = []
    for number, own in enumerate((np.arange(400), np.arange(40, 440))):
        seen = np.sqrt(0.95) * difficulty[None, own, None] + np.sqrt(0.05) * generator.standard_normal((1, 400, 2))
        vanilla = np.sqrt(0.5) * seen + np.sqrt(0.5) * generator.standard_normal((1, 400, 2)) < ndtri(0.8)
        pruned = vanilla & (seen < ndtri(0.8))  # what is hard to see is lost by pruning, in both benchmarks
        units, names = [f"{name} {number} {i}" for i in own], ("vanilla", "pruned")
        for parts, told in ((known, same), (unknown, {})):
            base, run = cells_of(np.concatenate([vanilla, pruned]), units, names, replicates, told)
            parts.append((relative(run, base), truth))
    return {
        "nine tenths of the photographs shared: relative": known[0],
        "nine tenths shared: Avg of two": mean_of(known),
        "the same, told by their bytes alone: Avg of two": mean_of(unknown),
    }


def _stored_anew(generator: np.random.Generator, look: np.uint64) -> str:
    """Give the perceptual hash of a copy: half of the copies differ in a bit, few in more."""
    flipped = generator.choice(64, generator.choice(4, p=[0.5, 0.3, 0.12, 0.08]), replace=False)
    return f"{int(look) ^ sum(1 << int(bit) for bit in flipped):016x}"


def bivariate(below: float, correlation: float) -> float:
    """Probability that two standard normal variables are both below a value."""
    from scipy.stats import multivariate_normal

    return float(multivariate_normal.cdf([below, below], cov=[[1, correlation], [correlation, 1]]))


Case = Callable[[np.random.Generator, str, int], Truths]
CASES: Mapping[str, Case] = {
    "ceiling": ceiling,
    "rare losses": rare_losses,
    "seeds": seeds,
    "unlike sizes": unlike_sizes,
    "shared pictures": shared_pictures,
}


def coverage(case: Case, experiments: int, replicates: int, seed: int) -> dict[str, tuple[float, float, float]]:
    """Share of experiments whose interval lies above the truth, below it, and its mean width, by number."""
    generator = np.random.default_rng(seed)
    found: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for i in range(experiments):
        for name, (d, truth) in case(generator, f"{seed} {i}", replicates).items():
            low, high = interval(d)
            found[name].append((low > truth, high < truth, high - low))
    means = {name: np.mean(rows, axis=0) for name, rows in found.items()}
    return {name: (float(above), float(below), float(width)) for name, (above, below, width) in means.items()}


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, action="append", help="by default all")
    parser.add_argument("--experiments", type=int, default=1000)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name in arguments.case or CASES:
        start = time.perf_counter()
        print(f"{name:60} covered  above  below  mean width")
        shares = coverage(CASES[name], arguments.experiments, arguments.replicates, arguments.seed)
        for what, (above, below, width) in shares.items():
            print(f"    {what:56} {100 * (1 - above - below):6.1f} % {100 * above:5.1f}  {100 * below:5.1f}  {width:10.3g}")
        print(f"    {arguments.experiments} experiments, {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
