"""The data of tasks: read once for all cells of a run, of which each has a task of its own."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import datasets

from vtpbench.harness.host.libraries import without_load_counts


class DataCache:
    """Keeps what `datasets.load_dataset` has given: tables on this disk, which are not loaded into memory."""

    def __init__(self) -> None:
        self._known: dict[str, datasets.DatasetDict] = {}
        self._asked: list[Any] = []
        """What calls were given: some are known by their address, at which nothing else may come to lie."""

    @contextmanager
    def read_once(self) -> Iterator[None]:
        """Let `datasets.load_dataset` give what it gave to the same call before; each caller may change its own."""
        load = datasets.load_dataset

        def load_once(*arguments: Any, **named: Any) -> Any:
            call = repr((arguments, sorted((key, value) for key, value in named.items() if key != "download_config")))
            if call not in self._known:
                given = load(*arguments, **named)
                if not isinstance(given, datasets.DatasetDict):
                    return given
                self._known[call] = given
                self._asked.append((arguments, named))
            # The rows of a copy are the same, on the disk; its description is its own.
            return datasets.DatasetDict({split: copy.deepcopy(table) for split, table in self._known[call].items()})

        datasets.load_dataset = load_once
        try:
            with without_load_counts():
                yield
        finally:
            datasets.load_dataset = load
