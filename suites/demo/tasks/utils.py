"""Prompts and scores of the demo tasks, in the forms of POPE, GQA, MMBench and TextVQA.

lmms-eval loads this file by its path: it imports nothing of vtpbench.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def doc_to_visual(doc: Row) -> list[Any]:
    """Show the scene."""
    return [doc["image"].convert("RGB")]


def doc_to_text(doc: Row, lmms_eval_specific_kwargs: Mapping[str, str]) -> str:
    """Ask, list the options where there are some, and say which form the answer takes."""
    options = "".join(f"\n{letter}. {option}" for letter, option in zip("ABCD", doc["options"], strict=False))
    return f"{lmms_eval_specific_kwargs['pre_prompt']}{doc['question']}{options}{lmms_eval_specific_kwargs['post_prompt']}"


def _plain(text: str) -> str:
    return text.strip().lower().strip(string.punctuation + " ")


def score_exact(doc: Row, results: Sequence[str]) -> dict[str, float]:
    """Compare the answer, case and surrounding punctuation ignored."""
    return {"exact_match": float(_plain(results[0]) == _plain(doc["answer"]))}


def score_yes_no(doc: Row, results: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Give every metric of the yes/no task what it needs."""
    said, truth = _plain(results[0]), doc["answer"]
    item = {"score": float(said == truth), "prediction": said, "ground_truth": truth}
    return {f"vtp_{name}": item for name in ("f1", "accuracy", "precision", "recall", "yes_ratio")}


def _share(hits: int, of: int) -> float:
    return hits / of if of else 0.0


def accuracy(items: Sequence[Row]) -> float:
    """Share of right answers."""
    return _share(sum(i["prediction"] == i["ground_truth"] for i in items), len(items))


def precision(items: Sequence[Row]) -> float:
    """Share of true ones among the answers `yes`."""
    said = [i for i in items if i["prediction"] == "yes"]
    return _share(sum(i["ground_truth"] == "yes" for i in said), len(said))


def recall(items: Sequence[Row]) -> float:
    """Share of objects that were found."""
    there = [i for i in items if i["ground_truth"] == "yes"]
    return _share(sum(i["prediction"] == "yes" for i in there), len(there))


def f1(items: Sequence[Row]) -> float:
    """Harmonic mean of precision and recall."""
    p, r = precision(items), recall(items)
    return 2 * p * r / (p + r) if p + r else 0.0


def yes_ratio(items: Sequence[Row]) -> float:
    """Share of answers `yes`."""
    return _share(sum(i["prediction"] == "yes" for i in items), len(items))
