"""Mutate the files that vtpbench reads and run its commands on them: each ends in a result, one line, or a healed file.

    python benchmarks/fuzz_files.py [CASES] [--seed N] [--show]

A case mutates one suite, task, model configuration, record, per-sample table or journal, and runs `plan`, `report`, `merge` or a
resumed run (with an engine that answers at once) on it, in this process, for at most 10 seconds of the processor. Counted are the
cases that end as they should, and those that end in a traceback, hang, are silent about what they lost, print a terminal's
escapes, or exit otherwise. Equal arguments give equal cases.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from fuzz_mutations import (
    Case,
    build,
    cells,
    mutate_config,
    mutate_efficiency,
    mutate_journal,
    mutate_record,
    mutate_suite,
    mutate_table,
    mutate_task,
    resume,
)
from typer.testing import CliRunner

from vtpbench.harness.cli.main import app
from vtpbench.harness.records.store import Store
from vtpbench.pruners.errors import UserError

LIMIT_S = 10
ESCAPES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class TooSlow(BaseException):
    """A case took longer than its limit."""


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise `TooSlow` in what takes more time of the processor, or waits six times as long: other programs may be busy."""

    def stop(number: int, frame: object) -> None:
        raise TooSlow

    before = {number: signal.signal(number, stop) for number in (signal.SIGALRM, signal.SIGPROF)}
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(6 * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)


def command(*arguments: str) -> Callable[[Case], str]:
    """Call a command of the command line, which may only succeed, or exit with 2 and one line."""

    def call(case: Case) -> str:
        filled = [argument.format(root=case.root) for argument in arguments]
        result = CliRunner().invoke(app, filled)
        text = result.stdout + result.stderr
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        if result.exit_code == 2 and "vtpbench: error: " not in result.stderr:
            raise AssertionError(f"exit code 2 without a line: {text[-300:]}")
        if result.exit_code not in (0, 2):
            raise AssertionError(f"exit code {result.exit_code}: {text[-300:]}")
        case.told.append(result.stderr)
        return text

    return call


def resumed(case: Case) -> str:
    """Resume the run, then look whether everything is whole."""
    try:
        text = resume(case.root, case.told)
    except UserError as e:
        return str(e)
    left = Store(case.root / "results" / "toy", lambda line: None).missing(cells())
    if left:
        raise AssertionError(f"not healed: {left}: {text[-300:]}")
    return text


PLAN = command("plan", "{root}/toy.yaml", "--out", "{root}/results")
REPORTS = tuple(command("report", "{root}/results", "--format", name) for name in ("markdown", "csv", "json", "latex", "html"))
ANALYSES = (command("report", "{root}/results", "--samples"), command("report", "{root}/results", "--columns", "category"))
SPEEDS = tuple(
    command("report", "{root}/speed", "--format", name) for name in ("markdown", "csv", "json", "latex", "html", "svg")
)
MERGE = command("merge", "{root}/results", "--out", "{root}/merged")
KINDS: dict[str, tuple[Callable[[Case], Path], tuple[Callable[[Case], str], ...]]] = {
    "suite": (mutate_suite, (PLAN,)),
    "task": (mutate_task, (PLAN,)),
    "config": (mutate_config, (PLAN,)),
    "record": (mutate_record, (*REPORTS, *ANALYSES, MERGE, resumed)),
    "table": (mutate_table, (*REPORTS, *ANALYSES, MERGE, resumed)),
    "journal": (mutate_journal, (resumed,)),
    "efficiency": (mutate_efficiency, SPEEDS),
}


def verdict(kind: str, number: int, seed: int, base: Path, root: Path) -> tuple[str, str]:
    """Run one case; returns how it ended, and what there is to say about that."""
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(base, root)
    case = Case(root, random.Random(f"{seed} {number}"))
    mutate, commands = KINDS[kind]
    path = mutate(case)
    content = path.read_bytes() if path.is_file() else None
    chosen = case.draw.choice(commands)
    try:
        with limited(LIMIT_S):
            text = chosen(case)
    except TooSlow:
        return "hang", str(path)
    except AssertionError as e:
        return "otherwise", str(e)
    except BaseException as e:
        return "traceback", f"{type(e).__name__}: {str(e)[:200]}"
    if (found := ESCAPES.search(text + "".join(case.told))) is not None:
        return "escape", repr(found[0])
    if (root / "ran").exists():
        return "ran code", chosen.__name__
    if sorted(path.name for path in root.parent.iterdir()) != ["base", "case"]:
        return "wrote elsewhere", str([*root.parent.iterdir()])
    if _is_silent(kind, path, content, text + "".join(case.told), base / path.relative_to(root), chosen is resumed):
        return "silent", f"{path.name}: {text[-200:]}"
    return "as it should", ""


def _is_silent(kind: str, path: Path, content: bytes | None, said: str, before: Path, healing: bool) -> bool:
    """Whether something was lost of results, and neither named nor kept aside nor measured again."""
    if not said.strip():
        return kind in ("suite", "task", "config", "record", "table")
    if kind != "table" or content == before.read_bytes():
        return False
    record = path.parent.parent / "records" / f"{path.stem}.json"
    known = json.loads(record.read_text()) if record.is_file() else {}
    forged = content is not None and known.get("samples_sha256") == sha256(content).hexdigest()
    return not forged and path.name not in said and not (healing and path.with_suffix(".bad1").exists())


def main(count: int, seed: int, show: bool, kinds: list[str] | None = None) -> Counter[str]:
    """Run the cases, print the counts by kind, and return them over all."""
    total: Counter[str] = Counter()
    by_kind: dict[str, Counter[str]] = {}
    names = kinds or list(KINDS)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(os.path.realpath(folder)) / "base"
        build(base)
        PLAN(Case(base, random.Random(0)))  # imports take longer than any case may
        for number in range(count):
            kind = names[number % len(names)]
            end, said = verdict(kind, number, seed, base, base.with_name("case"))
            total[end] += 1
            by_kind.setdefault(kind, Counter())[end] += 1
            if show and end != "as it should":
                print(f"{number} {kind}: {end}: {said!r:.300}")
    for kind, counts in by_kind.items():
        print(f"{kind}: {', '.join(f'{n} {end}' for end, n in counts.most_common())}")
    print(f"all: {', '.join(f'{n} {end}' for end, n in total.most_common())}")
    return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", type=int, nargs="?", default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="print each case that does not end as it should")
    parser.add_argument("--kind", action="append", choices=list(KINDS))
    chosen = parser.parse_args()
    found = main(chosen.cases, chosen.seed, chosen.show, chosen.kind)
    sys.exit(0 if set(found) <= {"as it should"} else 1)
