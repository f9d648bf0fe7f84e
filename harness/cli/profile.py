"""`vtpbench profile`: what pruning saves, and what it costs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vtpbench.harness.host.console import echo


def profile_command(
    suite: Annotated[
        str | None,
        typer.Argument(metavar="[SUITE]", help="A YAML file or a suite that comes along: its models, pruners and budgets."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Hub id, folder, demo, or dummy:llava-1.5-7b for random weights; see docs/efficiency.md."),
    ] = None,
    pruner: Annotated[
        list[str] | None,
        typer.Option(help="As in a suite: a name, path/to/file.py:Class, or 'name: {option: value}'; may be repeated."),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(help="Average vision tokens per decoder layer, 64 or 11.1%; instead of a suite's own; may be repeated."),
    ] = None,
    batch: Annotated[
        list[str] | None,
        typer.Option(metavar="N|max", help="Prompts at once, 1 by default; max: as many as fit the GPU; may be repeated."),
    ] = None,
    throughput: Annotated[bool, typer.Option("--throughput", help="Batches 1, 4, 16 and 64, and max on a GPU.")] = False,
    graphs: Annotated[
        bool, typer.Option("--graphs", help="Every row also as CUDA graphs, in the same turns: one more table; needs a GPU.")
    ] = False,
    flops_only: Annotated[
        bool, typer.Option("--flops-only", help="Count operations; draw no weights, run nothing, on any machine.")
    ] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each row, turn by turn.")] = 10,
    warmup: Annotated[int, typer.Option(min=0, help="Untimed runs of each row.")] = 2,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate.")] = 16,
    picture: Annotated[str, typer.Option(metavar="WIDTHxHEIGHT", help="Pixels of the pictures.")] = "640x480",
    dtype: Annotated[str | None, typer.Option(help="Number format of the weights: float32, bfloat16 or float16.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda:1 ...; by default the first GPU, else the CPU.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for results; records go to efficiency/ inside.")] = Path("results"),
) -> None:
    """Measure FLOPs, latency and memory of every stage, pruner by pruner; exit code 1 if a pruner failed."""
    from rich.console import Console

    from vtpbench.harness.efficiency.options import ProfileOptions, profile_models, read_protocol
    from vtpbench.harness.host.phases import make_phases
    from vtpbench.harness.records.efficiency import load_efficiency
    from vtpbench.pruners.errors import UserError
    from vtpbench.report.efficiency.table import build
    from vtpbench.report.efficiency.text import EfficiencyTerminal, render

    if flops_only and (batch or throughput or device or graphs):
        raise UserError("--flops-only runs nothing: leave out --batch, --throughput, --graphs and --device")
    if throughput and batch:
        raise UserError("--throughput chooses the batches; give either it or --batch")
    protocol = read_protocol(batch or ["1"], picture, new_tokens, warmup, repeats, graphs=graphs)
    order = ProfileOptions(suite, model, pruner or (), budget or (), dtype, device, out, flops_only, throughput, protocol)
    with make_phases(Console(file=sys.stderr)) as display:
        files = profile_models(order, display.advance)
    console, records = Console(), [load_efficiency(file) for file in files]
    for file, record in zip(files, records, strict=True):
        tables = build([record])
        if console.is_terminal:
            console.print(EfficiencyTerminal(tables))
        else:
            echo(render(tables, "markdown"), nl=False)
        echo(f"record {file}", err=True)
    raise typer.Exit(1 if any(row.status == "failed" for record in records for row in record.rows) else 0)
