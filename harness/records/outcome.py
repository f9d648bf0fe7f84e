"""What an engine hands back for one cell."""

from __future__ import annotations

from dataclasses import dataclass, field

from vtpbench.harness.records.answer_shares import AnswerShares
from vtpbench.harness.records.cell import Sample
from vtpbench.harness.records.record import BatchInfo, Observed, Status


@dataclass(frozen=True)
class Swept:
    """What answering a cell's questions together with others' has cost it.

    Attributes
    ----------
    seconds : its share of the time
    batch : how its questions were batched

    """

    seconds: float
    batch: BatchInfo

    def with_more(self, other: Swept) -> Swept:
        """Add another part of the cell's questions."""
        return Swept(self.seconds + other.seconds, self.batch.with_more(other.batch))


@dataclass(frozen=True)
class Outcome:
    """A cell's result before it becomes a record; fields as in `vtpbench.harness.records.record.Record`."""

    status: Status
    reason: str | None = None
    score: float | None = None
    stderr: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    n: int = 0
    observed: Observed | None = None
    generate_s: float = 0.0
    """Seconds spent answering in this attempt; journaled answers of an earlier one cost nothing here."""
    batch: BatchInfo | None = None
    samples: list[Sample] = field(default_factory=list)
    samples_sha256: str | None = None
    """Hash of the file that holds them, once they are written."""
    skipped: dict[str, str] = field(default_factory=dict)
    answers: AnswerShares | None = None
