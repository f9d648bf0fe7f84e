"""Arguments that several commands have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="A YAML file, or the name of a suite that comes along: demo.")]
Only = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Cells to take: model, pruner, budget, benchmark or seed; may be repeated."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace what the suite says, e.g. limit=50; may be repeated."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first questions of each benchmark.")]
BatchSize = Annotated[
    str | None, typer.Option(metavar="N|auto", help="Questions answered together; auto: what the GPU's memory holds.")
]
Dtype = Annotated[str | None, typer.Option(help="Number format of the weights: float32, bfloat16 or float16.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda:1 ...; by default the first GPU, else the CPU.")]
Out = Annotated[Path, typer.Option(help="Folder for results; each suite has its own inside.")]
