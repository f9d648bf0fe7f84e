"""Pack a folder of pictures and a table of questions into one parquet file: `python pack.py`, in this folder."""

import csv
from pathlib import Path

from datasets import Dataset, Image

HERE = Path(__file__).parent


def row(question: dict[str, str]) -> dict[str, object]:
    """Put the bytes of its picture beside a question."""
    picture = HERE / "pictures" / question["picture"]
    return {**question, "image": {"path": picture.name, "bytes": picture.read_bytes()}}


with open(HERE / "questions.csv", encoding="utf-8", newline="") as file:
    rows = [row(question) for question in csv.DictReader(file)]

Dataset.from_list(rows).cast_column("image", Image()).to_parquet(HERE / "task" / "photos.parquet")
print(f"{len(rows)} questions on {len({row['picture'] for row in rows})} pictures")
