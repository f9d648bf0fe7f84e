"""`vtpbench site`: results as a static site."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vtpbench.harness.cli.report import RESULTS
from vtpbench.harness.host.console import echo, warn
from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    from vtpbench.harness.gather.sources import Sources
    from vtpbench.harness.records.record import Record
    from vtpbench.report.site.facts import Method, Origin

MARK = "A leaderboard that `vtpbench site` wrote."


def site_command(
    sources: Annotated[
        list[str], typer.Argument(metavar="FOLDER...", help="Folders of results, also of efficiency records; or suites.")
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the pages go: a new folder, or a site of this command.")],
    verify: Annotated[bool, typer.Option("--verify", help="Verify all results first, and show what was found.")] = False,
) -> None:
    """Write a leaderboard: pages that work offline, one for each table and each method."""
    from vtpbench.harness.gather.sources import gather, split
    from vtpbench.harness.host.generated_folder import require_own, write_pages
    from vtpbench.report.site.site import SiteSources, site
    from vtpbench.report.stats.build import build

    require_own(out, MARK)
    names, speed = split(sources, RESULTS, warn)
    if not names:
        raise UserError("a leaderboard needs answers; name a folder of results as well, efficiency records hold none")
    found = gather(names, RESULTS, warn)
    tables = build(found.records, found.benchmarks, found.pruners, found.samples)
    methods = {name: _method(name) for name in sorted({record.pruner.placeless for record in found.records})}
    suites = [name for name in names if not Path(name).is_dir() and Path(name) != RESULTS]
    evidence = SiteSources(found.samples, found.pictures, _origins(found, suites) if verify else _folders(found), methods)
    pages = write_pages(out, MARK, site(tables, speed, evidence))
    echo(f"{len(pages)} pages; open {pages[0]}")


def _folders(found: Sources) -> Callable[[Record], Origin]:
    """Say where records lie."""
    from vtpbench.report.site.facts import Origin

    return lambda record: Origin(str(found.folder(record)))


def _origins(found: Sources, suites: Sequence[str]) -> Callable[[Record], Origin]:
    """Verify the folders of records, and say what was found of each record; benchmarks of `suites` are known, too."""
    from vtpbench.harness.verify.folder import verify as verify_folder
    from vtpbench.harness.verify.scores import Scorers
    from vtpbench.report.site.facts import Origin

    scorers = Scorers(suites)
    verdicts = {folder: verify_folder(folder, scorers) for folder in dict.fromkeys(map(found.folder, found.records))}
    for line in (line for verdict in verdicts.values() if not verdict.sound for line in verdict.lines()):
        warn(line)

    def origin(record: Record) -> Origin:
        folder = found.folder(record)
        verdict = verdicts[folder]
        if record.cell_id in verdict.faulty:
            return Origin(str(folder), "faulty")
        return Origin(str(folder), verdict.levels.get(record.cell_id, "whole"))

    return origin


def _method(name: str) -> Method:
    """Describe a pruner; of one that is not installed, or lies in a file of somebody's, the name alone is known."""
    from vtpbench.harness.cli.listing import options_of
    from vtpbench.harness.cli.pruner_table import summary_of
    from vtpbench.pruners.registry import entries
    from vtpbench.report.site.facts import Method

    if name not in entries():
        return Method(name, name)
    summary, cls = summary_of(name), entries()[name].load()
    facts = {
        "Name in a suite": name,
        "Acts, in LLaVA-1.5-7B, at": summary.acts_at,
        "Sees the question": summary.question,
        "Options": options_of(name) or "none",
        "Source": ", ".join(text for text in (summary.source, summary.venue, str(summary.year or "")) if text),
        "From": summary.distribution,
    }
    known = tuple((key, text) for key, text in facts.items() if text)
    seen = summary.year, summary.venue, summary.acts_at, summary.question
    return Method(name, cls.__name__, tuple(_paragraphs(inspect.getdoc(cls) or "")), known, *seen)


def _paragraphs(text: str) -> Iterable[str]:
    """Take the paragraphs of a class's documentation up to its sections."""
    for paragraph in text.split("\n\n"):
        lines = paragraph.splitlines()
        if len(lines) > 1 and set(lines[1].strip()) == {"-"}:
            return
        yield " ".join(paragraph.split()).replace("`", "")
