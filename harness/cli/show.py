"""`vtpbench show`: pictures of what pruners keep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vtpbench.harness.host.console import echo


def show_command(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Picture files; each becomes a row.")],
    model: Annotated[str, typer.Option(help="Hub id or folder of the model, or demo for the embedded one.")],
    pruner: Annotated[
        list[str],
        typer.Option(help="As in a suite: a name, path/to/file.py:Class, or 'name: {option: value}'; may be repeated."),
    ],
    budget: Annotated[str, typer.Option(help="Average vision tokens per decoder layer: 64, or 11.1%.")],
    question: Annotated[str | None, typer.Option(metavar="TEXT", help="Asked of the model; the answers are shown.")] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="A .png, or an .html page that holds everything.")] = Path("show.png"),
    seed: Annotated[int, typer.Option(min=0, help="Of pruners that draw at random.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda:1 ...; by default the first GPU, else the CPU.")] = None,
    text_tower: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="CLIP model of the vision tower, for cdpruner and trim: a hub id or a folder."),
    ] = None,
) -> None:
    """Draw images with the vision tokens that pruners keep, side by side."""
    from vtpbench.harness.show.show import ShowOptions, show

    echo(str(show(ShowOptions(images, model, pruner, budget, question, out, seed, device, text_tower))))
