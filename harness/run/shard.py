"""A part of every benchmark's questions: whole windows, so that answers are what they are in an undivided run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from vtpbench.harness.records.shard_note import MOST
from vtpbench.pruners.errors import UserError

_SHARD = re.compile(r"(\d{1,5})/(\d{1,5})")


@dataclass(frozen=True)
class Shard:
    """Part number `part`, from 1, of `of`."""

    part: int
    of: int

    def __str__(self) -> str:
        return f"{self.part}/{self.of}"

    def folder(self, suite: Path) -> Path:
        """Folder of its answers, below the results of the suite."""
        return suite / "shards" / f"{self.part}-of-{self.of}"

    def questions(self, total: int, window: int, turn: int) -> slice:
        """Say which questions of a benchmark belong to it: a run of whole windows, perhaps none.

        Parameters
        ----------
        total : questions of the benchmark
        window : questions whose pictures are encoded together
        turn : the benchmark's place in the suite; by it the shards take turns, so that small benchmarks spread over them

        """
        place, windows = (self.part - 1 + turn) % self.of, ceil(total / window)
        start, stop = (windows * n // self.of * window for n in (place, place + 1))
        return slice(min(start, total), min(stop, total))


def parse_shard(text: str) -> Shard:
    """Read `3/16`; raises `UserError` for anything else."""
    found = _SHARD.fullmatch(text.strip())
    shard = None if found is None else Shard(int(found[1]), int(found[2]))
    if shard is None or not 1 <= shard.part <= shard.of <= MOST:
        raise UserError(f"--shard {text}: write which part of how many, such as 3/16, from 1/16 to 16/16")
    return shard
