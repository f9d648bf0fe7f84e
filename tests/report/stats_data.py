"""Per-sample tables in the forms that the official tasks leave, filled at random."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from vtpbench.harness.records.record import BenchmarkInfo

COLUMNS = ["sample", "image", "score", "detail"]


def info(metric: str, scale: float = 1.0, dataset: str = "data") -> BenchmarkInfo:
    return BenchmarkInfo(
        label="b", task="t", metric=metric, scale=scale, split="test", limit=None, dataset=dataset, generation={}
    )  # fmt: skip


def frame(rows: Sequence[tuple[str, float | None, dict[str, Any]]]) -> pd.DataFrame:
    """Rows are image, score, detail."""
    table = [(str(i), image, score, json.dumps(detail)) for i, (image, score, detail) in enumerate(rows)]
    return pd.DataFrame(table, columns=COLUMNS)


def scored(scores: Sequence[float | None], images: Sequence[str], metric: str = "exact_match") -> pd.DataFrame:
    return frame([(image, score, {metric: score}) for image, score in zip(images, scores, strict=True)])


def pope(generator: np.random.Generator, images: int = 40) -> pd.DataFrame:
    rows = []
    for i in range(6 * images):
        said, truth = generator.choice(["yes", "no", "perhaps"], p=[0.5, 0.4, 0.1]), generator.choice(["yes", "no"])
        item = {"question_id": i, "score": float(said == truth), "prediction": str(said), "ground_truth": str(truth)}
        rows.append((f"image {i % images}", item["score"], {"pope_f1_score": item}))
    return frame(rows)


def mme(generator: np.random.Generator, pairs: int = 15) -> pd.DataFrame:
    """Five perception and two cognition categories; shuffled, so that pairs do not lie together."""
    rows = []
    for category in ("existence", "OCR", "color", "scene", "posters", "code_reasoning", "text_translation"):
        term = "mme_cognition_score" if category in ("code_reasoning", "text_translation") else "mme_perception_score"
        for i in range(2 * pairs):
            item = {"question_id": f"{category}/{i // 2}.png", "category": category, "score": float(generator.random() < 0.7)}
            rows.append((f"{category} {i // 2}", item["score"], {term: item}))
    return frame([rows[i] for i in generator.permutation(len(rows))])


def mmbench(generator: np.random.Generator, questions: int = 24) -> pd.DataFrame:
    """Circular groups of two to four rotations; the answer is always A, and the options are words."""
    rows = []
    for question in range(questions):
        for rotation in range(int(generator.integers(2, 5))):
            said = str(generator.choice(["A", "B"], p=[0.8, 0.2]))
            item = {"index": question + 1_000_000 * rotation, "question": "?", "answer": "A", "prediction": said, "category": "c",
                    "L2-category": "l", "A": "ant", "B": "bee", "C": "cow", "D": "dog"}  # fmt: skip
            rows.append((f"image {question // 2}", float(said == "A"), {"gpt_eval_score": item}))
    return frame([rows[i] for i in generator.permutation(len(rows))])
