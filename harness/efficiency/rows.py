"""The rows of an efficiency table on their way: in which order they take their turns, and how one drops out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from vtpbench.harness.efficiency.stages import Observation, Prompts, PrunerAtBudget
from vtpbench.harness.host.device import is_out_of_memory, refuse_lost
from vtpbench.harness.host.plugin_errors import describe_failure
from vtpbench.harness.records.efficiency import STAGES, Measured
from vtpbench.harness.records.record import BudgetInfo, PrunerInfo
from vtpbench.pruners.base import Pruner
from vtpbench.pruners.errors import Impossible, UserError

T = TypeVar("T")
Progress = Callable[[str, int, int], None]
"""Called with a phase, what is done of it, and its whole."""


@dataclass(frozen=True)
class PrunerRow:
    """One row of the table; vanilla has an empty budget."""

    info: PrunerInfo
    pruner: Pruner
    budget: BudgetInfo


class TooLarge(UserError):
    """A batch for which the device has not enough memory."""


@dataclass
class RowInProgress:
    """A pruner with what it showed, and its times by stage, one for each repeat; or how it dropped out.

    A row that is replayed has beside it the same one `launched`; `replayed` and `not_replayed` say what of it is captured.
    """

    pruner_row: PrunerRow
    subject: PrunerAtBudget
    seen: Observation | None = None
    pruner_flops: float = 0.0
    times: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    joules: float | None = None
    dropped: Measured | None = None
    launched: RowInProgress | None = None
    replayed: list[str] = field(default_factory=list)
    not_replayed: dict[str, str] = field(default_factory=dict)

    def as_graphs(self) -> RowInProgress:
        """Begin the same row, replayed."""
        subject = replace(self.subject, graphs=True)
        return RowInProgress(self.pruner_row, subject, pruner_flops=self.pruner_flops, dropped=self.dropped, launched=self)

    def afresh(self) -> RowInProgress:
        """Begin again with another batch: what was counted of one prompt stays."""
        return RowInProgress(self.pruner_row, self.subject, pruner_flops=self.pruner_flops, dropped=self.dropped)

    def attempt(self, work: Callable[[RowInProgress, Prompts], object], prompts: Prompts) -> None:
        """Do a part of the work, unless the row dropped out; what goes wrong, but for vanilla, drops this row alone.

        Raises
        ------
        TooLarge : the batch does not fit
        DeviceLost : nothing more can run

        """
        if self.dropped is not None:
            return
        info, batch = self.pruner_row.info, len(prompts.images)
        try:
            work(self, prompts)
        except Impossible as e:
            self._drop(e.status, str(e))
        except KeyboardInterrupt:
            raise
        except BaseException as e:  # as in a run: a stranger's pruner may fail in any way, or exit
            if is_out_of_memory(e):
                mend = "use --batch max, or a smaller one" if batch > 1 else "use a smaller model or number format"
                raise TooLarge(f"{info.label}: a batch of {batch} does not fit; {mend}") from e
            refuse_lost(e, f"pruner '{info.label}'", "leave out that pruner or the model")
            if info.name == "vanilla":
                raise
            self._drop("failed", str(e) if isinstance(e, UserError) else describe_failure(info.name, e))

    def _drop(self, status: Literal["infeasible", "unsupported", "failed"], reason: str) -> None:
        self.dropped = Measured(pruner=self.pruner_row.info, budget=self.pruner_row.budget, status=status, reason=reason)


def turn(rows: Sequence[T], repeat: int) -> list[T]:
    """Order rows for one repeat, so that none always comes first, nor always behind the same one.

    Every repeat begins with another row. Over as many repeats as there are rows, an even number, each stands once in each
    place and once behind each other; of an odd number, behind half of the others twice.

    Source: E. J. Williams, Experimental designs balanced for the estimation of residual effects of treatments, 1949.
    """
    zigzag = [(step + 1) // 2 * (1 if step % 2 else -1) for step in range(len(rows))]
    return [rows[(repeat + place) % len(rows)] for place in zigzag]
