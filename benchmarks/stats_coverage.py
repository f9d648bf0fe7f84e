"""How often 95 % intervals of vtpbench's reports cover the truth, in simulated experiments whose truth is known.

Each experiment draws images of three difficulties, and the answers of an unpruned and a pruned model to the questions on
them. Answers to questions on one image go together, and so do the two models' answers to one question. The benchmarks
have the forms of GQA (a mean), POPE (F1) and MME (its 14 categories at their published sizes).

    python benchmarks/stats_coverage.py
    python benchmarks/stats_coverage.py --images 20 --experiments 500
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vtpbench.report.stats.bootstrap import replicate
from vtpbench.report.stats.draws import Draws, average, draws, interval, relative
from vtpbench.report.stats.metrics import FloatArray
from vtpbench.report.stats.sums import Sums

SHARES = np.array([0.5, 0.3, 0.2])
"""Of easy, middling and hard images."""
RATES = np.array([[0.95, 0.80, 0.45], [0.90, 0.65, 0.35]])
"""Probability of a right answer by difficulty, of vanilla and of the pruner."""
TIMID = 0.9
"""The same for a question whose answer is yes, as a factor."""
TOGETHER = 0.8
"""Share of the questions whose difficulty is the same to both models."""
QUESTIONS = 6
"""Per image, but for MME's two."""
MME_PAIRS = (30, 30, 30, 30, 147, 170, 200, 200, 200, 20, 70, 20, 20, 20)


@dataclass(frozen=True)
class Simulated:
    """One benchmark of one experiment: sums of vanilla and pruner, and their true scores."""

    cells: tuple[Sums, Sums]
    truth: tuple[float, float]


Simulator = Callable[[np.random.Generator, int, str], Simulated]


def simulate_mean(generator: np.random.Generator, images: int, name: str) -> Simulated:
    """Share of right answers."""
    right = _answers(generator, images, QUESTIONS, np.ones((images, QUESTIONS)))
    below = np.full((images, 1), float(QUESTIONS))
    return _simulated(name, right.sum(2)[:, :, None], np.stack([below, below]), RATES @ SHARES, np.ones((2, 1)))


def simulate_f1(generator: np.random.Generator, images: int, name: str) -> Simulated:
    """F1 of yes, where half of the questions are to be answered with it."""
    there = generator.random((images, QUESTIONS)) < 0.5
    right = _answers(generator, images, QUESTIONS, np.where(there, TIMID, 1.0))
    hit, wrong = (right & there).sum(2), (~right).sum(2)
    true_hit, true_wrong = TIMID * RATES @ SHARES / 2, 1 - (1 + TIMID) * RATES @ SHARES / 2
    truth = 2 * true_hit / (2 * true_hit + true_wrong)
    usual = (2 * hit + wrong).sum() / (hit + wrong).sum()
    return _simulated(name, 2 * hit[:, :, None], (2 * hit + wrong)[:, :, None], truth, np.full((2, 1), usual))


def simulate_mme(generator: np.random.Generator, images: int, name: str) -> Simulated:
    """MME's score; the number of images is its own."""
    category = np.repeat(np.arange(len(MME_PAIRS)), MME_PAIRS)
    right = _answers(generator, len(category), 2, np.ones((len(category), 2))).sum(2)
    below = np.eye(len(MME_PAIRS))[category]
    points = 50.0 * right + 100.0 * (right == 2)
    truth = len(MME_PAIRS) * 100 * ((RATES + RATES**2) @ SHARES)
    question = np.outer([200.0, 1.0], np.ones(len(MME_PAIRS)))
    return _simulated(name, points[:, :, None] * below, np.stack([below, below]), truth, question)


def _answers(generator: np.random.Generator, images: int, questions: int, factor: FloatArray) -> FloatArray:
    """Whether each answer is right; shape (2 models, images, questions)."""
    difficulty = generator.choice(len(SHARES), size=images, p=SHARES)
    shared, own = generator.random((1, images, questions)), generator.random((2, images, questions))
    luck = np.where(generator.random((1, images, questions)) < TOGETHER, shared, own)
    return luck < RATES[:, difficulty, None] * factor


def _simulated(name: str, above: FloatArray, below: FloatArray, truth: FloatArray, question: FloatArray) -> Simulated:
    units = tuple(f"{name} {i:05}" for i in range(above.shape[1]))
    vanilla, pruned = (Sums(units, 0, above[i].astype(float), below[i].astype(float), question) for i in range(2))
    return Simulated((vanilla, pruned), (float(truth[0]), float(truth[1])))


SIMULATORS: dict[str, Simulator] = {"mean": simulate_mean, "F1": simulate_f1, "MME": simulate_mme}


def experiment(generator: np.random.Generator, images: int, replicates: int, name: str) -> dict[str, tuple[Draws, float]]:
    """Simulate all benchmarks once; replicates and truth of each score, relative accuracy, and of Avg."""
    found: dict[str, tuple[Draws, float]] = {}
    ratios: dict[str, tuple[Draws, float]] = {}
    for kind, simulate in SIMULATORS.items():
        simulated = simulate(generator, images, f"{kind} {name}")
        scores = replicate(("vanilla", "pruned"), simulated.cells, replicates)
        vanilla, pruned = (draws(column, cell) for column, cell in zip(scores.T, simulated.cells, strict=True))
        found[f"{kind}, score"] = pruned, simulated.truth[1]
        ratios[kind] = relative(pruned, vanilla), 100 * simulated.truth[1] / simulated.truth[0]
        found[f"{kind}, relative"] = ratios[kind]
    found["Avg of the three"] = average([d for d, _ in ratios.values()]), float(np.mean([truth for _, truth in ratios.values()]))
    return found


def percentiles(d: Draws) -> tuple[float, float]:
    """Plain percentile interval, for comparison."""
    low, high = np.quantile(d.replicates, [0.025, 0.975])
    return float(low), float(high)


INTERVALS = {"as reported": interval, "plain percentiles": percentiles}


def coverage(experiments: int, images: int, replicates: int, seed: int) -> dict[str, dict[str, float]]:
    """Share of the experiments in which an interval of each number covers its truth, by number and kind of interval."""
    generator = np.random.default_rng(seed)
    shares: dict[str, dict[str, float]] = {}
    for i in range(experiments):
        for name, (d, truth) in experiment(generator, images, replicates, f"{seed} {i}").items():
            own = shares.setdefault(name, dict.fromkeys(INTERVALS, 0.0))
            for kind, bounds in INTERVALS.items():
                low, high = bounds(d)
                own[kind] += (low <= truth <= high) / experiments
    return shares


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=1000)
    parser.add_argument("--images", type=int, default=200, help="of the mean and of F1")
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.perf_counter()
    print(" " * 20, *(f"{kind:>18}" for kind in INTERVALS))
    for name, shares in coverage(**vars(arguments)).items():
        print(f"{name:20}", *(f"{100 * shares[kind]:16.1f} %" for kind in INTERVALS))
    print(f"{arguments.experiments} experiments, {arguments.replicates} replicates, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
