"""Decode greedily, token by token, until every answer of a batch has ended.

This is `generate` of transformers without sampling, beams and penalties: a checkpoint's own settings are dropped when it is
loaded, but for the tokens that end an answer. Keys and values lie in buffers with room for the answer, and the further an answer
has come, the later the host looks at whether all have ended, so that it goes ahead of the device; what is written behind the end
of an answer is cut off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vtpbench.harness.pruning.captured_steps import StaticDecoding
from vtpbench.harness.pruning.sequence import seen_mask
from vtpbench.harness.pruning.static_step import CachedStage
from vtpbench.harness.pruning.system_prompt import prepend_valid
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.transfer import DelayedFlag, copy_to_device

if TYPE_CHECKING:
    from torch import Tensor

    from vtpbench.harness.pruning.decoder_hooks import DecoderPruning
    from vtpbench.harness.pruning.model import VisionLanguageModel

SURPLUS = 16
"""Once in so many tokens of an answer a step is run in vain, so that the host need not wait for each; at most `LATEST`.

A step that is run in vain costs more than a look, so that short answers are looked at after every token.
"""
LATEST = 4


@dataclass(frozen=True)
class DecoderInput:
    """What the decoder has seen when the first token is due.

    Attributes
    ----------
    embeds : (rows, columns, dim), what entered last
    positions : (rows, columns) int64, or (axes, rows, columns)
    valid : (rows, all columns) bool, which hold a token; None where all do
    cache : transformers' `Cache`
    pruning : makes the cuts inside the decoder; None where there are none

    """

    embeds: Tensor
    positions: Tensor
    valid: Tensor | None
    cache: Any
    pruning: DecoderPruning | None = None

    def stages(self, written: int) -> list[CachedStage]:
        """Say what is cached behind the pass over the prompts and `written` further tokens."""
        if self.pruning is None:
            cached = (len(self.embeds), self.cache.get_seq_length() - written)
            valid = self.embeds.new_ones(cached, dtype=torch.bool) if self.valid is None else self.valid
            parts = [(0, valid, self.positions)]
        else:
            before, device = self.pruning.batch.before, self.embeds.device
            parts = [
                (stage.at, prepend_valid(before, stage.layout.valid(device)), stage.positions) for stage in self.pruning.stages
            ]
        return [
            CachedStage(at, torch.nn.functional.pad(valid, (0, written), value=True), positions[..., -1:] + written + 1)
            for at, valid, positions in parts
        ]


@dataclass(frozen=True)
class Decoded:
    """Answers of a batch.

    Attributes
    ----------
    tokens : of each prompt, the one that ends it included
    ended : whether a token ended it before the limit
    finite : whether all logits that it was chosen by are numbers

    """

    tokens: list[list[int]]
    ended: list[bool]
    finite: list[bool]


def decode(
    model: VisionLanguageModel, start: DecoderInput, logits: Tensor, max_new_tokens: int, *, static: bool = False
) -> Decoded:
    """Choose at most `max_new_tokens` tokens for each prompt: the first by `logits`, each further one behind a pass of its own.

    Hooks on the decoder and its layers see the calls that `generate` would make; of `static` steps, which a GPU replays as
    graphs, they see nothing. Waits for the device in the end.
    """
    ends = end_tokens(model)
    tokens, finite, end = list["Tensor"](), list["Tensor"](), _Ends(ends, start.embeds)
    steps = StaticDecoding(model.captured_steps, start) if static else EagerDecoding(model, start)
    while True:
        tokens.append(logits.argmax(dim=-1))
        finite.append(logits.isfinite().all(dim=-1))
        if len(tokens) == max_new_tokens or end.reached(tokens):
            return _cut(tokens, finite, ends)
        logits = steps.logits(tokens[-1], len(tokens))


class EagerDecoding:
    """The steps of one batch, each launched by the host."""

    def __init__(self, model: VisionLanguageModel, start: DecoderInput) -> None:
        self.model, self.start = model, start

    def logits(self, token: Tensor, written: int) -> Tensor:
        """Take the last of `written` tokens, `(rows,)`, to logits, `(rows, vocabulary)` float32."""
        start = self.start
        seen = None if start.valid is None else torch.nn.functional.pad(start.valid, (0, written), value=True)
        mask = None if seen is None else seen_mask(self.model.decoder, seen)
        embeds = self.model.model.get_input_embeddings()(token[:, None])
        return self.model.next_logits(embeds, start.positions[..., -1:] + written, mask, start.cache)


def end_tokens(model: VisionLanguageModel) -> frozenset[int]:
    """Tokens that end an answer."""
    stated = model.model.generation_config.eos_token_id
    return frozenset([stated] if isinstance(stated, int) else stated or ())


class _Ends:
    """Whether all answers have ended."""

    def __init__(self, tokens: frozenset[int], embeds: Tensor) -> None:
        self.tokens = copy_to_device(torch.tensor(sorted(tokens)), embeds.device)
        self.ended = torch.zeros(embeds.shape[0], dtype=torch.bool, device=embeds.device)
        self.all_ended = DelayedFlag(embeds.device)

    def reached(self, written: list[Tensor]) -> bool:
        """Look at the last of the tokens that were written, or at an earlier one."""
        if not len(self.tokens):
            return False
        self.ended = self.ended | (written[-1][:, None] == self.tokens).any(dim=-1)
        return self.all_ended.seen(self.ended.all(), late=min(LATEST, len(written) // SURPLUS))


def _cut(tokens: list[Tensor], finite: list[Tensor], ends: frozenset[int]) -> Decoded:
    """Cut each answer behind the first token that ends it."""
    written: list[list[int]] = torch.stack(tokens, dim=1).tolist()
    numbers: list[list[bool]] = torch.stack(finite, dim=1).tolist()
    places = [next((n for n, token in enumerate(row) if token in ends), None) for row in written]
    lengths = [len(row) if n is None else n + 1 for n, row in zip(places, written, strict=True)]
    return Decoded(
        [row[:length] for row, length in zip(written, lengths, strict=True)],
        [n is not None for n in places],
        [all(row[:length]) for row, length in zip(numbers, lengths, strict=True)],
    )
