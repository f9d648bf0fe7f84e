"""Measure questions per second: one question at a time, one row after the other, and all rows in one pass.

A model with random weights is asked several questions about each of some JPEG pictures. Three ways, in one run, on the same
questions: one at a time without pruning, picture and prompt anew, with transformers' `generate`, as most papers' code runs; every
row by itself in batches, with every prompt prefilled whole and every step launched; the sweep of `vtpbench run`, with graphs
where the device has them. Beside them two floors by what this device can do, measured in the same run: the sweep's operations
at the rate of a matrix product, and the language model's weights, read once in every pass over a batch, at the rate of a copy.

    python benchmarks/throughput.py --device cpu
    python benchmarks/throughput.py --pictures 64 --questions 4 --batch-size 64
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from pruner_options import OPTIONS
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode
from trace_prefill import narrowed

from vtpbench.harness.efficiency.profiled_model import describe, open_for_speed
from vtpbench.harness.host.device import open_device
from vtpbench.harness.models.dummy import filler, noise_picture
from vtpbench.harness.models.family import Family
from vtpbench.harness.planning.cost import TEXT_BEFORE
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.pruning.schedule import BudgetRule, no_budget
from vtpbench.harness.records.cell import Answer
from vtpbench.harness.run.answering import Answerer
from vtpbench.harness.run.bad_questions import BadQuestions
from vtpbench.harness.run.questions import Question
from vtpbench.harness.run.sweep import SweepRow, WindowReader, sweep
from vtpbench.harness.suite.specs import DUMMY_PREFIX, ModelSpec
from vtpbench.pruners.base import Pruner
from vtpbench.pruners.registry import build

PRUNERS = ("random", "visionzip", "fastv", "sparsevlm", "pyramiddrop")
SHARES = (1 / 3, 2 / 9, 1 / 9)
"""Budgets: 192, 128 and 64 of LLaVA-1.5's 576 tokens."""
SIZE = (640, 480)


@dataclass(frozen=True)
class MeasuredRow(SweepRow):
    """A row that keeps its answers."""

    answers: list[Answer] = field(default_factory=list)

    def texts(self) -> dict[str, str]:
        """Give the answers by question."""
        return {answer.sample: answer.text for answer in self.answers}


def open_model(name: str, device: torch.device) -> Family:
    """Open a model with random weights; on a CPU a narrow one with all layers and tokens.

    Before the picture its prompts have as many tokens as LLaVA-1.5's.
    """
    with tempfile.TemporaryDirectory() as scratch:
        if device.type == "cpu":
            name = DUMMY_PREFIX + str(narrowed(name.removeprefix(DUMMY_PREFIX), Path(scratch)))
        dtype = "float32" if device.type == "cpu" else "bfloat16"
        family = open_for_speed(describe(ModelSpec(path=name, label="dummy"), dtype, "sdpa"), device)
    family.chat_template = "s" * (TEXT_BEFORE - 1) + family.chat_template
    return family


def jpegs(count: int) -> list[bytes]:
    """Make pictures of noise as files."""
    found = []
    for n in range(count):
        stream = io.BytesIO()
        noise_picture(*SIZE, seed=n).resize((80, 60)).resize(SIZE).save(stream, "JPEG", quality=90)
        found.append(stream.getvalue())
    return found


def make_questions(family: Family, files: Sequence[bytes], each: int, new_tokens: int) -> list[Question]:
    """Ask several questions about each picture, in prompts of 60 text tokens."""

    def ask(n: int) -> Question:
        text = filler(family, 60, seed=n)
        return Question(str(n), text, lambda: [Image.open(io.BytesIO(files[n // each])).convert("RGB")], new_tokens)

    return [ask(n) for n in range(len(files) * each)]


def rows_of(family: Family, batch_size: int, share_prefix: bool) -> list[MeasuredRow]:
    """Vanilla, and every pruner at every budget."""
    pruners: list[tuple[Pruner, BudgetRule]] = [(build("vanilla", {}), no_budget)]
    for name in PRUNERS:
        pruners += [(build(name, OPTIONS.get(name, {})), partial(_tokens, share)) for share in SHARES]
    found = []
    for pruner, budget in pruners:
        answers: list[Answer] = []
        graphs = share_prefix and family.has_graphs
        answerer = Answerer(Pipeline(family, pruner, budget, share_prefix=share_prefix, graphs=graphs), batch_size)
        found.append(MeasuredRow(answerer, {}, answers.extend, answers=answers))
    return found


def _tokens(share: float, n: int) -> int:
    return round(share * n)


def timed(device: torch.device, work: Callable[[], object]) -> float:
    """Seconds of some work, the device's included."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def stock(family: Family, questions: Sequence[Question]) -> None:
    """Answer one by one with transformers' `generate`: every picture and prompt anew, no pruning."""
    vanilla = Pipeline(family)
    for q in questions:
        (image,) = q.images()
        kept = vanilla.select(vanilla.encode([image]), ["picture"])
        batch = vanilla.assemble([q.text], [[kept[0]]])
        family.model.generate(inputs_embeds=batch.embeds, position_ids=batch.positions, max_new_tokens=q.max_new_tokens)


def one_by_one(rows: Sequence[MeasuredRow], questions: Sequence[Question]) -> None:
    """Answer row after row."""
    for row in rows:
        for answers in row.answerer.answer(questions):
            row.add(answers)


def together(family: Family, rows: Sequence[SweepRow], questions: Sequence[Question]) -> None:
    """Answer all rows in one pass."""
    sweep(rows, questions, WindowReader(family, BadQuestions(family)), lambda done, total: None)


def peaks(device: torch.device) -> tuple[float, float]:
    """Time a matrix product and a copy: TFLOP/s and GB/s of this device."""
    side = 8192 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    a = torch.randn(side, side, device=device).to(dtype)
    product = min(timed(device, lambda: a @ a) for _ in range(5))
    copy = min(timed(device, a.clone) for _ in range(5))
    return 2 * side**3 / product / 1e12, 2 * a.numel() * a.element_size() / copy / 1e9


def floors(family: Family, questions: Sequence[Question], batch_size: int, flops: float, copied: float) -> dict[str, float]:
    """Answers per second that neither operations nor the reading of weights allow to exceed.

    Parameters
    ----------
    family : the model
    questions : of which the first, a batch of them, are counted in a sweep of their own
    batch_size : prompts that are answered together
    flops : rate of a matrix product, TFLOP/s
    copied : rate of a copy, read and write together, GB/s

    """
    few = questions[:batch_size]
    rows = rows_of(family, batch_size, True)
    with FlopCounterMode(display=False) as counter:
        together(family, rows, few)
    each = counter.get_total_flops() / (len(rows) * len(few))
    weights = sum(x.numel() * x.element_size() for x in family.decoder.parameters())
    passes = few[0].max_new_tokens / batch_size
    return {"operations": flops * 1e12 / each, "weights": copied * 1e9 / (passes * weights)}


def main() -> None:
    """Measure, compare the answers, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dummy:llava-1.5-7b")
    parser.add_argument("--device", default=None)
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--questions", type=int, default=4, help="about each picture")
    parser.add_argument("--new-tokens", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=16)
    arguments = parser.parse_args()
    device = open_device(arguments.device)
    family = open_model(arguments.model, device)
    questions = make_questions(family, jpegs(arguments.pictures), arguments.questions, arguments.new_tokens)
    few = questions[: min(16, len(questions))]
    stock(family, few[:2])  # warm
    alone, shared = rows_of(family, arguments.batch_size, False), rows_of(family, arguments.batch_size, True)
    total = len(alone) * len(questions)
    rates = {
        f"one question at a time, unpruned ({len(few)} of them)": len(few) / timed(device, lambda: stock(family, few)),
        "one row after the other": total / timed(device, lambda: one_by_one(alone, questions)),
        "all rows in one pass": total / timed(device, lambda: together(family, shared, questions)),
    }
    texts = [(a.texts(), b.texts()) for a, b in zip(alone, shared, strict=True)]
    equal = sum(one[q.sample] == other[q.sample] for one, other in texts for q in questions)
    flops, copied = peaks(device)
    bounds = floors(family, questions, arguments.batch_size, flops, copied)
    table = Table("way", "questions/s", "ratio", *(f"of the floor by {bound}" for bound in bounds), box=MARKDOWN)
    base = rates["one row after the other"]
    for way, rate in rates.items():
        table.add_row(way, f"{rate:.2f}", f"{rate / base:.2f}", *(f"{100 * rate / bound:.1f} %" for bound in bounds.values()))
    console = Console(width=150)
    console.print(table)
    replays, refused = family.captured_passes.replays, dict(family.captured_passes.refused)
    steps = family.captured_steps
    console.print(f"floors: {', '.join(f'{bound:.2f} questions/s by {name}' for name, bound in bounds.items())}")
    console.print(f"steps: {steps.captured} shapes replayed" if steps.refused is None else f"steps: launched ({steps.refused})")
    console.print(f"passes: {', '.join(f'{name} replayed {n} times' for name, n in replays.items()) or 'launched'}")
    console.print(*(f"{name}: {why}" for name, why in refused.items()), sep="\n", end="\n" * bool(refused))
    console.print(
        f"{len(alone)} rows x {len(questions)} questions about {arguments.pictures} pictures, batch {arguments.batch_size}"
    )
    console.print(f"equal answers: {equal} of {total}")
    console.print(f"measured here: matrix product {flops:.2f} TFLOP/s, copy {copied:.1f} GB/s")


if __name__ == "__main__":
    main()
