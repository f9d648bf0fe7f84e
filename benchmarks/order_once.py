"""Choose tokens for several budgets: each asked by itself, and the order of the largest asked once; before and after in one run.

    python benchmarks/order_once.py                      # 576 tokens of 8 images, budgets 192, 128 and 64, on a processor
    python benchmarks/order_once.py --device cuda

Times are the medians of runs that alternate; what is kept is compared bit by bit.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from vtpbench.harness.pruning.shared_choices import SharedChoices
from vtpbench.pruners.base import Cut, Evidence, Grid, ModelShape, Pruner, TextTowerSource, TokenView
from vtpbench.pruners.registry import BUILT_IN, build, find

SHAPE = ModelShape(
    "llava", 32, 32, 4096, 24, 1024, 22, True, tuple(range(24)), tiles=1, text_tower=TextTowerSource("random", "random")
)
WIDTHS = {"projected": (4096,), "joint": (768,), "cls": ()}


def view_of(pruner: Pruner, images: int, n: int, device: torch.device) -> TokenView:
    """Random evidence of the widths of LLaVA-1.5-7B, as much as a pruner needs."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*size: int) -> torch.Tensor:
        return torch.rand(images, *size, generator=generator).to(device)

    side = int(n**0.5)
    return TokenView(
        cut=Cut(0, n),
        stage=0,
        features=drawn(n, 1024),
        index=torch.arange(n, device=device).expand(images, -1),
        grid=Grid(1, side, n // side),
        shape=SHAPE,
        keys=tuple(map(str, range(images))),
        evidence={need: drawn(n, *WIDTHS[need.kind]) for need in pruner.needs(SHAPE)},
        asked=drawn(768) if Evidence("joint") in pruner.needs(SHAPE) else None,
    )


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that something takes, on the device, too."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


@torch.inference_mode()
def measure(pruner: Pruner, budgets: Sequence[int], options: argparse.Namespace) -> tuple[float, float]:
    """Median seconds for all budgets, each asked by itself and the order asked once."""
    device = torch.device(options.device)
    view = view_of(pruner, options.images, options.tokens, device)
    views = [replace(view, cut=Cut(0, budget)) for budget in budgets]

    def apart() -> list[torch.Tensor]:
        return [pruner.apply(each).index for each in views]

    def once() -> list[torch.Tensor]:
        shared = SharedChoices([(pruner, budget) for budget in budgets])
        return [shared.choose(pruner, each).index for each in views]

    assert all(map(torch.equal, apart(), once())), "kept tokens differ"
    pairs = [(timed(apart, device), timed(once, device)) for _ in range(options.repeats)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def main() -> None:
    """Print medians and their ratio for each pruner whose choices are nested."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=576)
    parser.add_argument("--budgets", type=int, nargs="+", default=[192, 128, 64])
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    print(f"{'pruner':<12}{'asked by itself, ms':>22}{'once, ms':>12}{'ratio':>8}")
    for name in (name for name in BUILT_IN if find(name).load().nested):
        apart, once = measure(build(name, {}), options.budgets, options)
        print(f"{name:<12}{1000 * apart:>22.1f}{1000 * once:>12.1f}{apart / once:>8.2f}")


if __name__ == "__main__":
    main()
