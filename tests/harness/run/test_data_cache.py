"""The data of a task are read once for all its cells; what one does to its copy reaches no other, and nobody is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import config, load

from vtpbench.harness.run.data_cache import DataCache


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Any]:
    """Read a table of two questions, as lmms-eval calls it."""
    questions = [{"question": "Why?", "answer": "a"}, {"question": "How?", "answer": "b"}]
    file = tmp_path / "questions.json"
    file.write_text("\n".join(map(json.dumps, questions)))

    def read(**more: Any) -> Any:
        config = datasets.DownloadConfig()
        return datasets.load_dataset("json", data_files={"test": str(file)}, download_config=config, **more)

    return read


def test_the_same_call_reads_once_and_gives_copies_of_its_own(read: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    data, calls, real = DataCache(), list[Any](), datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda *given, **named: (calls.append(named), real(*given, **named))[1])
    patched = datasets.load_dataset
    with data.read_once():
        first = read()
        first["test"].set_format("numpy", columns=["answer"])
        first["test"].info.description = "changed"
        del first["test"].info.features["question"]
        first["other"] = first.pop("test")
    with data.read_once():
        second = read()
        assert list(second) == ["test"]
        assert second["test"][1] == {"question": "How?", "answer": "b"}, "no format of another's"
        assert second["test"].info.description != "changed"
    assert len(calls) == 1
    assert datasets.load_dataset is patched


def test_another_call_is_another_table(read: Callable[..., Any]) -> None:
    with DataCache().read_once():
        whole, one = read()["test"], read(split="test[1:]")
        other = read(split={"test": "test[1:]"})["test"]
    assert [len(whole), one["answer"], other["answer"]] == [2, ["b"], ["b"]]


def test_no_server_is_told(read: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(load, "get_session", lambda: told.append("session"))
    monkeypatch.setattr(config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(config, "HF_UPDATE_DOWNLOAD_COUNTS", True)
    with DataCache().read_once():
        read()
    assert not told
    assert config.HF_UPDATE_DOWNLOAD_COUNTS, "as the host has it"
    read()
    assert told, "or this test could not fail"
