"""CHAIR's count of objects that are not there, through the official task, with data of NLTK made here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path

import pandas as pd
import pytest

from vtpbench.harness.suite.benchmarks import describe, registry
from vtpbench.harness.suite.task_support import missing_nltk
from vtpbench.pruners.errors import UserError
from vtpbench.report.stats import sums

# there: cat, chair | dog | person, car, bus | pizza
CAPTIONS = ["two cats and a dog", "a puppy", "people in a car, a car, a pizza", "nothing at all"]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Let NLTK read the smallest data there are, and none that lie on this machine."""
    from nltk import data

    folder = tmp_path_factory.mktemp("nltk_data")
    run_path(str(Path(__file__).with_name("nltk_data.py")))["write"](folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "path", [str(folder)])
        yield folder


def test_chair_is_the_share_of_named_objects_that_are_not_there(words, play) -> None:
    played = play("chair", CAPTIONS)
    assert played.scores == [1 / 2, 0, 1 / 4, None]
    named, wrong = 2 + 1 + 4, 1 + 0 + 1
    assert played.outcome.score == pytest.approx(100 * wrong / named)
    assert played.outcome.metrics["coco_cap_chair_s"] == 50
    assert played.outcome.metrics["coco_cap_recall"] == pytest.approx(100 * (1 + 1 + 2 + 0) / 7)
    assert not played.cell.benchmark.higher_is_better
    assert played.longest == {2048}


@pytest.mark.parametrize("metric", ["coco_cap_chair_i", "coco_cap_chair_s", "coco_cap_recall"])
def test_the_sums_behind_error_bars_give_the_official_numbers(metric, words, play, monkeypatch) -> None:
    played = play("chair", CAPTIONS, metric=metric)
    rows = pd.DataFrame([dataclasses.asdict(sample) for sample in played.outcome.samples])
    monkeypatch.setattr(sums, "MIN_UNITS", 1)
    assert sums.summarise(played.cell.benchmark, played.outcome.score, rows).score == pytest.approx(played.outcome.score)
    assert played.cell.benchmark.higher_is_better == (metric == "coco_cap_recall")


def test_chair_is_refused_before_anything_runs_where_nltk_lacks_its_data(monkeypatch) -> None:
    from nltk import data

    monkeypatch.setattr(data, "path", [])
    command = "python -m nltk.downloader punkt_tab averaged_perceptron_tagger_eng wordnet"
    with pytest.raises(UserError, match=f"reads answers with data of NLTK that are not here; run: {command}"):
        describe(registry()["chair"], None, {})


def test_data_of_nltk_are_found_unpacked_and_as_they_are_downloaded(words, tmp_path, monkeypatch) -> None:
    from nltk import data

    assert missing_nltk(registry()["chair"].nltk) == []
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "wordnet.zip").write_bytes(b"PK\5\6" + bytes(18))
    monkeypatch.setattr(data, "path", [str(tmp_path)])
    assert missing_nltk(["corpora/wordnet", "tokenizers/punkt_tab"]) == ["tokenizers/punkt_tab"]
