"""GQA's exact match and the soft scores of TextVQA, VQAv2 and VizWiz, through the official tasks."""

from __future__ import annotations

import datasets.config
import pytest

from vtpbench.harness.host.images import image_name

SOFT = {0: 0.0, 1: 0.3, 2: 0.6, 3: 0.9, 4: 1.0, 10: 1.0}
"""Soft score by how many of ten people say the same: each is compared with the other nine, three of whom are enough."""


def test_gqa_ignores_case_and_punctuation_only(play) -> None:
    played = play("gqa", ["No.", "RED", "on the left", "man"])
    assert played.scores == [1, 1, 0, 1]
    assert played.outcome.score == 75
    assert played.outcome.stderr == pytest.approx(100 * (0.75 * 0.25 / 3) ** 0.5)
    assert [sample.target for sample in played.outcome.samples] == ["no", "red", "left", "man"]
    assert len({sample.image for sample in played.outcome.samples}) == 2, "questions on one picture share its name"
    assert played.longest == {16}


def test_gqa_joins_its_tables_from_the_cache_without_login_or_network(play, official, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    official.fill_cache_with_gqa(tmp_path / "cache")
    played = play("gqa", ["no", "blue", "left", "man"], overrides={})
    assert played.scores == [1, 0, 1, 1]
    assert [sample.image for sample in played.outcome.samples] == [image_name(official.picture(n)) for _, n, _, _ in official.GQA]


def test_textvqa_normalises_and_counts_people(play) -> None:
    played = play("textvqa", ["The Stop!", "ACME", "two", "Poe"])
    assert played.scores == pytest.approx([SOFT[10], SOFT[3], SOFT[4], SOFT[1]])
    assert played.outcome.score == pytest.approx(100 * (1 + 0.9 + 1 + 0.3) / 4)
    assert played.longest == {1024}


def test_textvqa_in_the_papers_profile_gives_the_ocr_tokens(play, official) -> None:
    tokens = [", ".join(tokens) for _, _, tokens in official.TEXTVQA]
    prompts = [
        f"{question.capitalize()}\nReference OCR token: {own}{official.SHORT}"
        for (question, _, _), own in zip(official.TEXTVQA, tokens, strict=True)
    ]
    assert "STOP, all way" in prompts[0], "tokens keep their case"
    played = play("textvqa", ["stop", "ajax", "3", "nobody"], profile="paper", prompts=prompts)
    assert played.scores == pytest.approx([1, 1, 1, 0])
    assert played.cell.benchmark.dataset != play("textvqa", ["a"] * 4).cell.benchmark.dataset, "another question"


def test_vqav2_counts_people(play) -> None:
    played = play("vqav2", ["a cat", "two", "Yes", "Red."])
    assert played.scores == pytest.approx([SOFT[10], SOFT[2], SOFT[3], SOFT[1]])
    assert played.outcome.score == pytest.approx(100 * (1 + 0.6 + 0.9 + 0.3) / 4)
    assert len({sample.image for sample in played.outcome.samples}) == 2, "questions on one picture share its name"
    assert played.longest == {16}


def test_vizwiz_gives_points_for_saying_that_there_is_no_answer(play) -> None:
    played = play("vizwiz", ["Unanswerable", "unanswerable.", "5", "bean"])
    assert played.scores == pytest.approx([SOFT[10], SOFT[3], SOFT[2], SOFT[0]])
    assert played.outcome.score == pytest.approx(100 * (1 + 0.9 + 0.6) / 4)
    assert [sample.category for sample in played.outcome.samples] == ["unanswerable", "yes/no", "number", "other"]
    assert played.longest == {1024}
