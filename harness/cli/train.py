"""`vtpbench train`: pruners that are trained before they can be measured."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vtpbench.harness.host.console import echo

train_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Train a pruner that needs it.")


@train_app.callback()
def _train() -> None:
    """Train a pruner that needs it."""


@train_app.command("oc-vtp")
def oc_vtp_command(
    model: Annotated[str, typer.Option(help="Hub id or folder of the model whose vision tower is used.")],
    images: Annotated[Path, typer.Option(metavar="FOLDER|FILE", help="Pictures (png, jpg, webp), or parquet with `image`.")],
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="YAML with options; see docs/training.md.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights to write; by default oc-vtp.safetensors in the model's folder."),
    ] = None,
    work: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="For features and interrupted runs; by default beside the weights.")
    ] = None,
    exclude: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER|FILE", help="Pictures not to train on: as --images, or text with a content hash per line."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda:1 ...; by default the first GPU, else the CPU.")] = None,
) -> None:
    """Train OC-VTP for a model's vision tower; interrupt it and run the same command again as you like."""
    from rich.console import Console

    from vtpbench.harness.host.phases import make_phases
    from vtpbench.harness.train.train import TrainOptions, train_oc_vtp

    with make_phases(Console(file=sys.stderr)) as display:
        trained = train_oc_vtp(TrainOptions(model, images, config, out, work, exclude, device), display)
    if trained is None:  # one of several processes; the first one speaks
        return
    numbers = trained.header.validation
    echo(f"validation loss {numbers['loss']:.4g} at step {trained.header.step}, untrained {numbers['untrained_loss']:.4g}")
    echo(f"weights {trained.checkpoint}, log {trained.log}, plot {trained.plot}")
    echo(f"{trained.work} holds features and checkpoints; delete it when you are content")
