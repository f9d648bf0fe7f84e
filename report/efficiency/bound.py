"""What holds a row back: the host that launches, the device's arithmetic, or its memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from vtpbench.harness.records.efficiency import Ceilings, Measured

BUSY = 0.8
"""Share of the elapsed time that the device works, below which it waits for the host so often that the host decides."""


@dataclass(frozen=True)
class Bound:
    """How a row spends its time.

    Attributes
    ----------
    busy : time that the device worked, as a share of the time that passed in the quickest turn; on a CPU with other work, where
        neither is exact, it may exceed 1
    compute : operations each second of the device's time, as a share of what a large matrix product reaches
    memory : bytes each second of the device's time, as a share of what a large copy reaches

    """

    busy: float
    compute: float
    memory: float

    @property
    def by(self) -> Literal["launch", "compute", "memory"]:
        """What a row is bound by: where the device is busy, the resource that it would need longest at its ceiling."""
        if self.busy < BUSY:
            return "launch"
        return "compute" if self.compute >= self.memory else "memory"

    def __str__(self) -> str:
        return f"{self.by}-bound"

    @property
    def share(self) -> str:
        """How near the limit is, in words."""
        if self.by == "launch":
            return f"device busy {100 * self.busy:.0f} %"
        return f"{100 * max(self.compute, self.memory):.0f} % of the ceiling"


def bound(row: Measured, ceilings: Ceilings | None, batch: int, stages: tuple[str, ...]) -> Bound | None:
    """Judge some stages of a row together; None where they were not watched, or nothing was launched in them."""
    work = row.summed_work(stages)
    if ceilings is None or work is None or not work.device_ms or not row.summed_ms(stages):
        return None
    seconds = work.device_ms / 1000
    return Bound(
        busy=work.device_ms / min(row.summed_ms(stages)),  # both at their best: what else a machine does adds to either
        compute=batch * row.flops["exact"].of(stages) / seconds / 1e12 / ceilings.tflops_per_s,
        memory=work.moved_bytes / seconds / 1e9 / ceilings.gb_per_s,
    )


def summary(first: Sequence[Bound | None], decode: Iterable[Bound | None]) -> str:
    """Say in a sentence what holds rows back; empty where nobody watched."""
    known = [each for each in first if each is not None]
    later = {each.by for each in decode if each is not None}
    decoding = f"; decoding is {' or '.join(f'{by}-bound' for by in sorted(later))}" if later else ""
    return "; ".join(_groups(known)) + decoding if known else ""


_MEANING = {
    "launch": "the host launches more slowly than the device works, so that fewer tokens do not help, but fewer launches do: "
    "a larger batch, a faster host",
    "compute": "the device's arithmetic decides, so that fewer tokens help",
    "memory": "reading weights and tensors decides, so that fewer tokens help little, and a larger batch does",
}


def _groups(rows: Sequence[Bound]) -> Iterator[str]:
    for by, meaning in _MEANING.items():
        shares = sorted(100 * row.busy for row in rows if row.by == by)
        if shares:
            busy = f"{shares[0]:.0f}" if round(shares[0]) == round(shares[-1]) else f"{shares[0]:.0f} to {shares[-1]:.0f}"
            count = "all rows are" if len(shares) == len(rows) else f"{len(shares)} of {len(rows)} rows are"
            yield f"up to the first token {count} {by}-bound (device busy {busy} %): {meaning}"
