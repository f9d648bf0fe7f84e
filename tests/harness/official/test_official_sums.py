"""The sums that error bars are drawn from give, without resampling, the score that the official aggregation gives."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from vtpbench.report.stats import sums

ANSWERS = {
    "gqa": ["no", "blue", "left", "man"],
    "mmbench": ["A", "D", "C", "B", "A", "D", "B", "B", "A", "B", "??", "B"],
    "mme": ["yes", "no", "yes", "yes", "no", "maybe", "yes", "no"],
    "pope": ["yes", "no", "yes", "no", "Yes.", "no", "yes", "no"],
    "scienceqa": ["A", "B", "B", "A", "(A)"],
    "textvqa": ["stop", "acme", "2", "poe"],
    "vqav2": ["cat", "2", "yes", "green"],
    "vizwiz": ["unanswerable", "no", "5", "corn"],
    "mmmu": ["B", "B", "12.5", "circle", "C", "B"],
    "seed": ["B", "A", "A", "C", "B"],
    "mmstar": ["B", "A", "?", "C", "B", "D"],
    "ocrbench": ["exit", "acme", "x", "12"],
    "chartqa": ["41", "Chile", "25%", "1200", "3"],
    "docvqa": ["1 April", "Smith", "$ 1,200", "Report"],
    "infovqa": ["30%", "21", "Lim"],
    "realworldqa": ["B", "3", "uphill", "C"],
    "ai2d": ["B", "B", "D", "C"],
    "refcoco": ["[0.1, 0.2, 0.4, 0.6]", "?", "[0.6, 0, 1, 1]", "[0, 0, 1, 1]"],
    "mmbench-cn": ["A", "C", "B", "A", "A"],
}


@pytest.mark.parametrize("label", ANSWERS)
def test_samples_give_the_official_score(label, play, monkeypatch) -> None:
    played = play(label, ANSWERS[label])
    assert played.outcome.score not in (0, 100)
    rows = [
        {**dataclasses.asdict(sample), "score": score}
        for sample, score in zip(played.outcome.samples, played.scores, strict=True)
    ]
    monkeypatch.setattr(sums, "MIN_UNITS", 1)
    found = sums.summarise(played.cell.benchmark, played.outcome.score, pd.DataFrame(rows))
    assert found.score == pytest.approx(played.outcome.score, abs=1e-3)
    images = {sample.image or f"no image: {sample.sample}" for sample in played.outcome.samples}
    assert len(found.units) == len(images)


@pytest.mark.parametrize(("label", "groups"), [("mmbench", 4), ("mmbench-cn", 2), ("mme", 4), ("pope", 8), ("gqa", 4)])
def test_pairs_and_rotations_are_known_as_such(label, groups, play) -> None:
    played = play(label, ANSWERS[label])
    samples = pd.DataFrame([dataclasses.asdict(sample) for sample in played.outcome.samples])
    names = sums.together(played.cell.benchmark, samples)
    assert names.nunique() == groups


def test_the_subtasks_of_mme_add_up_to_its_score(play) -> None:
    played = play("mme", ANSWERS["mme"])
    samples = pd.DataFrame([dataclasses.asdict(sample) for sample in played.outcome.samples])
    parts = [sums.add_up(played.cell.benchmark, part).score for _, part in samples.groupby("category")]
    assert len(parts) == 3
    assert sum(parts) == pytest.approx(played.outcome.score)


@pytest.mark.parametrize("label", ["mmstar", "ocrbench"])
def test_abilities_are_scored_as_their_official_scores_are(label, play) -> None:
    played = play(label, ANSWERS[label])
    samples = pd.DataFrame([dataclasses.asdict(sample) for sample in played.outcome.samples])
    parts = {name: sums.add_up(played.cell.benchmark, part).score for name, part in samples.groupby("category")}
    if label == "mmstar":
        assert parts == {name: pytest.approx(100 * played.outcome.metrics[name]) for name in ("coarse perception", "math")}
    else:
        sizes = samples.groupby("category").size()
        assert sum(parts[name] * sizes[name] for name in parts) == pytest.approx(len(samples) * played.outcome.score)


def test_another_tasks_metric_of_a_known_name_is_taken_for_a_mean(play) -> None:
    rows = pd.DataFrame(
        {"sample": ["0", "1"], "image": "", "score": [1.0, 0.0], "detail": ['{"average": 1.0}', '{"average": 0.0}']}
    )
    info = play("mmstar", ANSWERS["mmstar"]).cell.benchmark
    assert sums.add_up(info, rows).score == 50
