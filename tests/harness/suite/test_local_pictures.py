"""Which pictures belong to local questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vtpbench.harness.suite.local_pictures import file_hash, local_pictures


def write_json(file: Path, names: list[str]) -> None:
    file.write_text(json.dumps([{"image": name, "question": "What?"} for name in names]))


def write_lines(file: Path, names: list[str]) -> None:
    file.write_text("".join(json.dumps({"about": {"images": [name]}}) + "\n" for name in names))


def write_csv(file: Path, names: list[str]) -> None:
    file.write_text("question,image\n" + "".join(f'"What, then?",{name}\n' for name in names))


def write_parquet(file: Path, names: list[str]) -> None:
    images = [[{"bytes": None, "path": name}] for name in names]
    kind = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"images": pa.array(images, kind), "question": ["What?"] * len(names)}), file)


WRITERS: dict[str, Any] = {"q.json": write_json, "q.jsonl": write_lines, "q.csv": write_csv, "q.parquet": write_parquet}


@pytest.mark.parametrize("where", ["images/a.png", "a.png", "deep/down/a.png"], ids=["by path", "beside", "by its own code"])
@pytest.mark.parametrize("name", WRITERS)
def test_pictures_that_questions_name_are_found_and_no_others(name: str, where: str, tmp_path: Path) -> None:
    picture = tmp_path / where
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(b"one")
    (tmp_path / "other.png").write_bytes(b"other")
    WRITERS[name](tmp_path / name, [where if "images" in where else "a.png", "http://x/gone.png"])
    before = local_pictures([tmp_path / name], tmp_path)
    assert list(before.values()) == [file_hash(picture)]
    (tmp_path / "other.png").write_bytes(b"changed")
    assert local_pictures([tmp_path / name], tmp_path) == before
    picture.write_bytes(b"two")
    assert local_pictures([tmp_path / name], tmp_path) != before


def test_an_absolute_path_and_a_link_to_a_folder_are_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a.png").write_bytes(b"one")
    task = tmp_path / "task"
    task.mkdir()
    (task / "images").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "back").symlink_to(task)
    write_json(task / "q.json", [str(tmp_path / "far" / "a.png")])
    assert len(local_pictures([task / "q.json"], task)) == 1
    write_json(task / "q.json", ["a.png"])
    assert list(local_pictures([task / "q.json"], task)) == ["a.png"]


def test_pictures_that_nothing_names_lie_in_the_folder_of_the_task(tmp_path: Path) -> None:
    write_json(tmp_path / "q.json", ["17", "18"])
    for name in ("pictures/17.jpg", "pictures/18.jpg", "out/s/pictures/1.jpg", ".hidden/x.png", "notes.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"one")
    for name in ("records", "locks"):
        (tmp_path / "out" / "s" / name).mkdir()
    assert list(local_pictures([tmp_path / "q.json"], tmp_path)) == ["pictures/17.jpg", "pictures/18.jpg"]
    assert local_pictures([tmp_path / "q.json"], None) == {}


def test_pictures_inside_the_table_need_no_files(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": bytes(500), "path": "a.png"}] * 3, kind)
    pq.write_table(pa.table({"image": images, "question": ["What?"] * 3}), tmp_path / "q.parquet")
    (tmp_path / "a.png").write_bytes(b"something else")
    assert local_pictures([tmp_path / "q.parquet"], tmp_path) == {}


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\x00", '{"a": 1}\n{"b"'])
def test_what_cannot_be_read_is_left_to_whoever_loads_it(text: str, tmp_path: Path) -> None:
    for name in ("q.json", "q.jsonl", "q.csv", "q.parquet", "q.arrow"):
        (tmp_path / name).write_text(text)
        assert local_pictures([tmp_path / name], tmp_path) == {}
