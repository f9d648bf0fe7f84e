"""What must hold for every model family: one function each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import get_args

import torch
from torch import Tensor

from vtpbench.harness.check.family_subject import STEPS, FamilySubject, own_logits, stock_logits
from vtpbench.harness.check.properties import PASS, Verdict, batch_invariant, kernel_free, leaves_no_trace, removal_is_masking
from vtpbench.harness.check.subject import TOLERANCE
from vtpbench.harness.efficiency.flops import Workload, count
from vtpbench.harness.efficiency.pruner_flops import counted, prefill
from vtpbench.harness.models.dimensions import Dimensions
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.pruning.schedule import collecting
from vtpbench.pruners.base import ATTENTION_KINDS, Evidence, Kind
from vtpbench.pruners.errors import Impossible, Unsupported
from vtpbench.pruners.registry import BUILT_IN, build
from vtpbench.pruners.vanilla import Vanilla

TOWER_KINDS = (*sorted(ATTENTION_KINDS), "hidden", "projected")


@dataclass(frozen=True)
class FamilyProperty:
    """A property, in words and as a test."""

    name: str
    meaning: str
    test: Callable[[FamilySubject], Verdict]


def is_stock(subject: FamilySubject) -> Verdict:
    """Compare with the stock model's `generate`, from pixels: bit by bit, but for several images to 1e-4.

    The stock model takes all images of a prompt through its tower at once, here those of one shape go together.
    """
    for question in subject.questions:
        theirs, ours = stock_logits(subject.family, question), own_logits(subject.family, question)
        if theirs.shape != ours.shape:
            return Verdict(
                "fail", f"{len(ours)} tokens are answered to question '{question.key}', {len(theirs)} by the stock model"
            )
        gap = (theirs - ours).abs().max().item()
        allowed = TOLERANCE * max(1.0, theirs.abs().max().item()) if len(question.images) > 1 else 0.0
        if not gap <= allowed:
            where = f"of question '{question.key}' with {len(question.images)} images"
            return Verdict("fail", f"logits {where} differ by {gap:.2g} from those of the stock model's generate")
    return PASS


def positions_are_kept(subject: FamilySubject) -> Verdict:
    """Compare positions of a pruned prompt with those of the whole: kept where they have several axes, else counted anew."""
    family, question = subject.family, subject.questions[2]
    full = Pipeline(family, Vanilla()).run([question], 1).batch
    batch = Pipeline(family, build("random", {}), lambda n: max(1, n // 2)).run([question], 1).batch
    if not family.shape.multi_axis_positions:
        counted_anew = torch.arange(batch.layout.width, device=family.device)[None]
        return PASS if torch.equal(batch.positions, counted_anew) else Verdict("fail", "positions are not counted from 0")
    columns = torch.ones(full.layout.width, dtype=torch.bool, device=family.device)
    for number, place in full.layout.places.items():
        columns[place.start : place.start + place.length] = torch.isin(full.images[number].index, batch.images[number].index)
    if not torch.equal(batch.positions, full.positions[..., columns]):
        return Verdict("fail", "tokens that stay have other positions than in the whole prompt")
    return PASS


def removal(subject: FamilySubject) -> Verdict:
    """Let tokens leave before the language model, behind its first layer, and in several steps."""
    for name in ("random", "fastv", "pyramiddrop"):
        verdict = removal_is_masking(subject.pruned_by(name))
        if verdict.status != "pass":
            return Verdict(verdict.status, f"{name}: {verdict.reason}")
    return PASS


def evidence_is_given(subject: FamilySubject) -> Verdict:
    """Ask for every kind of evidence of the tower: there for each token, finite, alone as together, or refused with a reason."""
    family, refused = subject.family, []
    images = [image for question in subject.questions for image in question.images]
    for kind in (kind for kind in get_args(Kind) if kind in TOWER_KINDS):
        need = Evidence(kind, family.shape.feature_layer)
        try:
            together = Pipeline(family, collecting(need)).encode(images)
        except Unsupported:
            refused.append(kind)
            continue
        for tokens in together:
            (alone,) = Pipeline(family, collecting(need)).encode([images[tokens.members[0]]])
            if fault := _evidence_fault(tokens.evidence.get(need), alone.evidence.get(need), tokens.features.shape[:2]):
                return Verdict("fail", f"{kind}: {fault}")
    if {"hidden", "projected", "keys", "received"} & set(refused):
        return Verdict("fail", f"refused: {', '.join(refused)}; most pruners need hidden, keys, received and projected")
    return Verdict("pass", f"without {', '.join(refused)}" if refused else "")


def geometry(subject: FamilySubject) -> Verdict:
    """Look at groups, indices and boxes: every image once, every token once, every box inside the picture."""
    family = subject.family
    images = [image for question in subject.questions for image in question.images]
    groups = family.group(images)
    if sorted(member for group in groups for member in group.members) != list(range(len(images))):
        return Verdict("fail", "group does not name every image once")
    for tokens in Pipeline(family).encode_groups(groups):
        if tokens.features.shape[:2] != tokens.index.shape or tokens.features.shape[1] != tokens.grid.n:
            return Verdict(
                "fail", f"{tuple(tokens.features.shape[:2])} features, {tuple(tokens.index.shape)} indices, {tokens.grid}"
            )
        if not torch.equal(tokens.index, torch.arange(tokens.grid.n, device=family.device).expand(tokens.index.shape)):
            return Verdict("fail", "tokens of the tower are not numbered in their order")
        _, boxes = family.boxes(images[tokens.members[0]], tokens.grid)
        sides = boxes[:, 2:] - boxes[:, :2]
        if len(boxes) != tokens.grid.n or boxes.min() < 0 or boxes.max() > 1 or sides.min() < 0 or not (sides > 0).all(1).any():
            return Verdict("fail", f"{len(boxes)} boxes for {tokens.grid.n} tokens, from {boxes.min():.3g} to {boxes.max():.3g}")
    return PASS


def prompts(subject: FamilySubject) -> Verdict:
    """Render questions that mark images, and that quote special tokens."""
    family = subject.family
    for n in range(3):
        ids = family.token_ids(family.render("In <image>, what is <image>?", n))
        if ids.count(family.image_id) != n:
            return Verdict("fail", f"a prompt with {n} images has {ids.count(family.image_id)} image tokens")
    quoted = [token for token in family.tokenizer.all_special_tokens if token != "<image>"]
    plain = family.token_ids(family.render("", 1))
    for token in quoted:
        number = family.tokenizer.convert_tokens_to_ids(token)
        if family.token_ids(family.render(f"What does {token} mean?", 1)).count(number) != plain.count(number):
            return Verdict("fail", f"a question that quotes {token} is read as that token")
    return PASS


def operations(subject: FamilySubject) -> Verdict:
    """Count with torch's counter what tower, projector, prefill and decoding take; must agree to 1 %."""
    family, question = subject.family, subject.questions[0]
    dimensions = Dimensions.of(type(family), family.model.config)
    pipeline = Pipeline(family, Vanilla())
    (tokens,), vision = counted(lambda: pipeline.encode(question.images))
    image = pipeline.select([tokens], [question.key])[0]
    batch, projector = counted(lambda: pipeline.assemble([question.text], [[image]]))
    _, first = counted(lambda: prefill(family, batch))
    _, answer = counted(lambda: pipeline.generate(batch, STEPS))
    entered = (float(len(image.index)),) * family.shape.decoder_layers
    flops = count(dimensions, Workload(tokens.grid, entered, batch.layout.width - len(image.index), new=STEPS))
    found = {"tower": vision, "projector": projector, "prefill": first, "decoding": answer - first}
    said = (flops.vision, flops.projector, sum(flops.prefill) + flops.head, sum(flops.decode))
    wrong = [
        f"{part}: {value:.4g} by `dimensions`, {counts:.4g} counted"
        for (part, counts), value in zip(found.items(), said, strict=True)
        if abs(value - counts) > 0.01 * max(counts, 1)
    ]
    return Verdict("fail", "; ".join(wrong)) if wrong else PASS


def built_ins(subject: FamilySubject) -> Verdict:
    """Answer with every built-in pruner at half of the tokens; each may say that it is unsupported, or cannot reach that."""
    refused = []
    for name in BUILT_IN:
        try:
            run = subject.pruned_by(name).run(subject.questions)
        except Impossible:
            refused.append(name)
            continue
        if not bool(run.logits.isfinite().all()):
            return Verdict("fail", f"{name}: logits are not finite")
        for key, image in run.images.items():
            entered = run.per_layer(key)
            if any(after > before for before, after in pairwise((image.original, *entered))):
                return Verdict("fail", f"{name}: layers get {entered} of {image.original} tokens")
    return Verdict(
        "pass", f"{len(BUILT_IN) - len(refused)} of {len(BUILT_IN)}; others refuse: {', '.join(refused)}" if refused else ""
    )


FAMILY_PROPERTIES = (
    FamilyProperty("stock", "all tokens kept, answers are those of the stock model's generate, from pixels", is_stock),
    FamilyProperty("positions", "tokens that stay have the positions that they should have", positions_are_kept),
    FamilyProperty("masking", "removal equals masking of the same columns, before and inside the LLM", removal),
    FamilyProperty("evidence", "the tower's evidence is there for every token, or refused", evidence_is_given),
    FamilyProperty("geometry", "every image and token once, every box inside the picture", geometry),
    FamilyProperty("prompts", "a prompt has its images, and quoted special tokens are text", prompts),
    FamilyProperty("batch", "alone as in a batch, in any number of passes", lambda s: batch_invariant(s.pruned_by("random"))),
    FamilyProperty("kernel", "the same on SDPA and eager attention", lambda s: kernel_free(s.pruned_by("fastv"))),
    FamilyProperty("hooks", "nothing remains of a run, nor of one that failed", lambda s: leaves_no_trace(s.pruned_by("fastv"))),
    FamilyProperty("operations", "those counted from sizes are within 1 % of torch's counter", operations),
    FamilyProperty("pruners", "every built-in pruner answers, or says why it cannot", built_ins),
)


def _evidence_fault(together: Tensor | None, alone: Tensor | None, shape: torch.Size) -> str | None:
    """Say what is wrong with evidence of images, and with the first of them asked alone; None where nothing is."""
    if together is None or alone is None:
        return "neither given nor refused; raise Unsupported with the reason"
    if together.shape[:2] != shape:
        return f"shape {tuple(together.shape)} for {tuple(shape)} images and tokens"
    if together.dtype != torch.float32 or not bool(together.isfinite().all()):
        return f"{together.dtype}, or not finite; give float32"
    gap = (together[:1] - alone).abs().max().item()
    return f"differs by {gap:.2g} for an image alone" if gap > TOLERANCE * max(1.0, alone.abs().max().item()) else None
