"""Parts of a cell's measurement that may break, and the record that its outcome becomes."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TypeVar

from pydantic import ValidationError

from vtpbench.harness.host.device import refuse_lost
from vtpbench.harness.host.files import StorageError
from vtpbench.harness.records.cell import Cell
from vtpbench.harness.records.outcome import Outcome
from vtpbench.harness.records.record import Environment, Record, Timing
from vtpbench.pruners.errors import Impossible, UserError, failing_line

T = TypeVar("T")


def attempt(work: Callable[[], T], fatal: type[UserError], at: object) -> T | Outcome:
    """Do a part of a cell; an exception becomes the cell's result, so that the other cells go on.

    `fatal` is the mistake that ends the run, `at` names what is being done. `Row.attempt` does the same for the rows of a
    profile, `check` for the lines of its report.
    """
    try:
        return work()
    except fatal:
        raise
    except Impossible as e:
        return Outcome(e.status, str(e))
    except UserError as e:
        return Outcome("failed", str(e))
    except ValidationError as e:
        error = e.errors()[0]
        what = f"{'.'.join(map(str, error['loc']))} = {error['input']!r:.100}: {error['msg'].lower()}"
        return Outcome("failed", f"no record can hold {what}")
    except KeyboardInterrupt:
        raise
    except BaseException as e:  # a stranger's task or pruner may also end the program, with success and no word
        refuse_lost(e, at, "name the other cells with --only")
        first, *rest = traceback.format_exception_only(e)[0].strip().splitlines()
        reason = "\n".join([f"{first}{failing_line(e)}", *rest, "", traceback.format_exc()])
        return Outcome("failed", reason)


def record_of(cell: Cell, outcome: Outcome, suite: str, environment: Environment, wall_s: float) -> Record:
    """Make a cell's record; what no record can hold fails the cell."""
    made = attempt(lambda: _record(cell, outcome, suite, environment, wall_s), StorageError, cell)
    return _record(cell, made, suite, environment, wall_s) if isinstance(made, Outcome) else made


def _record(cell: Cell, outcome: Outcome, suite: str, environment: Environment, wall_s: float) -> Record:
    return Record(
        cell_id=cell.id,
        suite=suite,
        status=outcome.status,
        reason=outcome.reason and outcome.reason.encode(errors="replace").decode(),  # file names may hold what UTF-8 cannot
        model=cell.model,
        pruner=cell.pruner,
        budget=cell.budget,
        benchmark=cell.benchmark,
        seed=cell.seed,
        seeds=list(cell.seeds),
        score=outcome.score,
        stderr=outcome.stderr,
        metrics=outcome.metrics,
        n=outcome.n,
        samples_sha256=outcome.samples_sha256,
        skipped=outcome.skipped,
        answers=outcome.answers,
        observed=outcome.observed,
        timing=Timing(wall_s=wall_s, generate_s=outcome.generate_s, overhead_s=wall_s - outcome.generate_s),
        batch=outcome.batch,
        environment=environment,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
