"""What must hold for every pruner: one function each."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from vtpbench.harness.check.faults import NoDerivative, count_fault, index_fault, origin_fault, size_fault
from vtpbench.harness.check.masking import masked_logits
from vtpbench.harness.check.subject import (
    ALL,
    HALF,
    QUARTER,
    TOLERANCE,
    ProbeRun,
    PrunerOnModel,
    budget_of,
    difference,
)
from vtpbench.harness.pruning.batch import ImageTokens
from vtpbench.pruners.base import Cut, Selection, TokenView
from vtpbench.pruners.budget import met
from vtpbench.pruners.errors import Infeasible

Status = Literal["pass", "fail", "n/a", "infeasible", "unsupported"]


@dataclass(frozen=True)
class Verdict:
    """Whether a property holds; anything but a pass has a reason."""

    status: Status
    reason: str = ""


@dataclass(frozen=True)
class Property:
    """A property, in words and as a test."""

    name: str
    meaning: str
    test: Callable[[PrunerOnModel], Verdict]


PASS = Verdict("pass")
NOT_NESTED = "it says `nested`, and a smaller budget keeps others than the first tokens of a larger one's order"


def keep_all(subject: PrunerOnModel) -> Verdict:
    """Compare with the model without pruning, bit by bit."""
    run = subject.run(share=ALL)
    shape = subject.build(attention="sdpa", dtype=torch.float32).shape
    if run.pruner.adaptive:
        return Verdict("n/a", "its count adapts to the image")
    if any(run.pruner.expected_average(image.original, image.original, shape) < image.original for image in run.images.values()):
        return Verdict("n/a", "it keeps less than all at any budget")
    if any((choice.keep.index < 0).any() for choice in run.choices):
        return Verdict("n/a", "it puts tokens of its own in the place of some of the image's")
    gap = (run.logits - subject.vanilla().logits).abs().max().item()
    return PASS if gap == 0 else Verdict("fail", f"logits differ by {gap:.2g} from those without pruning")


def exact_count(subject: PrunerOnModel) -> Verdict:
    """Compare what entered every decoder layer with the schedule."""
    for _, run in _runs(subject):
        adaptive = run.pruner.adaptive
        for choice in run.choices:
            fault = size_fault(choice) or (None if adaptive else count_fault(choice))
            if fault is not None:
                return Verdict("fail", fault)
        for key, image in run.images.items():
            counts, due = run.per_layer(key), _scheduled(image, len(run.per_layer(key)))
            if not all(n <= m if adaptive else n == m for n, m in zip(counts, due, strict=True)):
                return Verdict("fail", f"layers get {counts} tokens of image {key}, {due} are due")
    return PASS


def truthful_indices(subject: PrunerOnModel) -> Verdict:
    """Look at the indices of every choice and, where it merges tokens, at what its rows are made of."""
    choices = subject.base.choices
    if not choices:
        return Verdict("n/a", "it makes no cut")
    merging = [choice for choice in choices if choice.keep.merged and choice.keep.k]
    try:
        faults = [*map(index_fault, choices), *(origin_fault(choice, subject.pruner) for choice in merging)]
    except NoDerivative:
        return Verdict("n/a", "it merges tokens outside torch: no derivative tells of which")
    return next((Verdict("fail", fault) for fault in faults if fault is not None), PASS)


def seed_stable(subject: PrunerOnModel) -> Verdict:
    """Run again with other global seeds; the global generators must be left as they are."""
    first = subject.base
    with _other_seeds():
        states = _generator_states()
        again = subject.run()
        untouched = states == _generator_states()
    verdict = _same(again, first, tolerance=0.0)
    if verdict.status == "pass" and not untouched:
        return Verdict("fail", "it draws from a global random generator; own a generator that is seeded by `seed` and the key")
    return verdict


def batch_invariant(subject: PrunerOnModel) -> Verdict:
    """Ask some questions alone that were asked in a batch of unequal prompts, and all with few pictures in each tower pass.

    A pruner that says `nested` is asked for the order of all tokens, too, as where rows of several budgets share pictures.
    """
    for question in subject.questions[:3:2]:
        verdict = _same(subject.run([question]), subject.base, [question.key])
        if verdict.status != "pass":
            return verdict
    apart = difference(subject.run(images_per_pass=3), subject.base, subject.base.rows)  # 3: not all tiles of an image
    if apart is not None:
        return Verdict("fail", f"with 3 pictures in each tower pass, {apart}")
    return PASS if not subject.pruner.nested or _is_nested(subject) else Verdict("fail", NOT_NESTED)


def _is_nested(subject: PrunerOnModel) -> bool:
    """Whether what was kept before the language model begins the order of all tokens."""
    pruner = subject.pruner
    choices = [choice for choice in subject.base.choices if choice.view.cut.at == 0]
    orders = [pruner.apply_order(replace(choice.view, cut=Cut(0, choice.view.n))) for choice in choices]
    return all(
        torch.equal(pruner.take_first(order, choice.view).index, choice.keep.index)
        for order, choice in zip(orders, choices, strict=True)
    )


def order_free(subject: PrunerOnModel) -> Verdict:
    """Ask the questions in another order."""
    return _same(subject.run(subject.questions[::-1]), subject.base)


def kernel_free(subject: PrunerOnModel) -> Verdict:
    """Run on eager attention what ran on SDPA."""
    return _same(subject.run(attention="eager"), subject.base)


def removal_is_masking(subject: PrunerOnModel) -> Verdict:
    """Compare with a run in which the removed tokens stay, but are masked."""
    question = subject.questions[0]
    run = subject.run([question])
    if not run.choices:
        return Verdict("n/a", "it makes no cut")
    if any(choice.keep.merged for choice in run.choices):
        return Verdict("n/a", "it merges tokens")
    if any(choice.view.cut.at < 0 for choice in run.choices):
        return Verdict("n/a", "what leaves inside the vision tower is not seen by what stays")
    if not run.batch.images:
        return Verdict("n/a", "no token is left")
    if any((places < 0).any() for places in run.trace.kept[0].values()):
        return Verdict("n/a", "rows without a place of their own stay")
    family = subject.build(attention="sdpa", dtype=torch.float32)
    expected = masked_logits(family, subject.vanilla([question]).batch, run)
    gap = (run.logits[:, 0] - expected).abs().max().item()
    if not gap <= TOLERANCE * max(1.0, expected.abs().max().item()):
        return Verdict("fail", f"logits differ by {gap:.2g} from those with masked columns")
    return PASS


def leaves_no_trace(subject: PrunerOnModel) -> Verdict:
    """Count hooks after a run and after an exception inside the pruner at each of its cuts; the model must be as before."""
    model = subject.build(attention="sdpa", dtype=torch.float32).model
    questions = subject.questions[:1]
    before, hooks = subject.vanilla(questions), _hooks(model)
    subject.run(questions)
    if _hooks(model) != hooks:
        return Verdict("fail", f"{_hooks(model) - hooks} hooks remain after a run")

    class Deliberate(Exception):
        pass

    def fail(view: TokenView, selection: Selection, at: int) -> None:
        del selection
        if view.cut.at == at:
            raise Deliberate

    for at in sorted({choice.view.cut.at for choice in subject.base.choices}):
        with suppress(Deliberate):
            subject.run(questions, observer=partial(fail, at=at))
        if _hooks(model) != hooks:
            return Verdict("fail", f"{_hooks(model) - hooks} hooks remain after an exception at layer {at}")
    return _same(subject.vanilla(questions), before, tolerance=0.0)


def average_is_budget(subject: PrunerOnModel) -> Verdict:
    """Compare the observed average over all layers with what was asked for, to 1 token or 1 %."""
    shape = subject.build(attention="sdpa", dtype=torch.float32).shape
    for share, run in _runs(subject):
        for key, image in run.images.items():
            budget, counts = budget_of(share, image.original), run.per_layer(key)
            observed = sum(counts) / max(1, len(counts))
            expected = run.pruner.expected_average(budget, image.original, shape)
            if not met(observed, expected, adaptive=run.pruner.adaptive):
                return Verdict("fail", f"{observed:.4g} tokens on average, {expected:.4g} of {image.original} were asked for")
    return PASS


def works_in_bfloat16(subject: PrunerOnModel) -> Verdict:
    """Run in bfloat16: as many tokens, finite logits."""
    run = subject.run(dtype=torch.bfloat16)
    for key in run.images:
        counts, expected = run.per_layer(key), subject.base.per_layer(key)
        if not run.pruner.adaptive and counts != expected:
            return Verdict("fail", f"layers get {counts} tokens of image {key}, {expected} in float32")
    return PASS if bool(run.logits.isfinite().all()) else Verdict("fail", "logits are not finite")


PROPERTIES = (
    Property("keep-all", "a budget of all tokens gives bit-equal logits to no pruning", keep_all),
    Property("exact-count", "every decoder layer gets as many tokens as scheduled, and sizes add up", exact_count),
    Property("indices", "indices are ascending and unique, or name what was merged", truthful_indices),
    Property("seed", "the same seed makes the same choice, whatever the global generators", seed_stable),
    Property("batch", "alone as in a batch, in any number of passes, beside any budget", batch_invariant),
    Property("order", "the order of samples does not matter", order_free),
    Property("kernel", "the same on SDPA and eager attention", kernel_free),
    Property("masking", "removal equals masking of the same columns", removal_is_masking),
    Property("hooks", "nothing remains of a run, nor of one that failed at any cut", leaves_no_trace),
    Property("budget", "the observed average is the requested budget", average_is_budget),
    Property("bfloat16", "works in bfloat16", works_in_bfloat16),
)


def _same(run: ProbeRun, expected: ProbeRun, names: Sequence[str] | None = None, tolerance: float = TOLERANCE) -> Verdict:
    found = difference(run, expected, run.rows if names is None else names, tolerance)
    return PASS if found is None else Verdict("fail", found)


def _runs(subject: PrunerOnModel) -> list[tuple[float, ProbeRun]]:
    """Answer at two budgets, given as shares, or at one where the other is out of the pruner's reach."""
    runs = [(HALF, subject.base)]
    with suppress(Infeasible):
        runs.append((QUARTER, subject.quarter))
    return runs


def _scheduled(image: ImageTokens, layers: int) -> list[int]:
    """Tokens that are due in each decoder layer."""
    return [
        next((cut.keep for cut in reversed(image.schedule.cuts) if cut.at <= layer), image.original) for layer in range(layers)
    ]


def _hooks(model: nn.Module) -> int:
    """Hooks of all modules together."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())


@contextmanager
def _other_seeds() -> Iterator[None]:
    """Seed all global generators differently, and put them back afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            random.seed(1)
            np.random.seed(1)
            torch.manual_seed(1)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _generator_states() -> tuple[object, ...]:
    numpy: Any = np.random.get_state()
    return random.getstate(), numpy[1].tobytes(), numpy[2:], torch.get_rng_state().numpy().tobytes()
