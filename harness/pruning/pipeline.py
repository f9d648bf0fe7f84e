"""From images and questions to answers, for everything that runs a model with a pruner: encode, select, assemble, generate.

The steps are methods of their own, because benchmarks encode an image once for many questions and profiles time them one by
one; `run` does all four. Who wants to watch gives an `observer`, which sees every selection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING
from weakref import ref

from PIL.Image import Image

from vtpbench.harness.pruning.batch import ImageGroup, ImageTokens, PromptBatch, VisionTokens
from vtpbench.harness.pruning.decoder_hooks import ForwardTrace, layer_hooks
from vtpbench.harness.pruning.decoding import decode
from vtpbench.harness.pruning.layout import PromptLayout, Span
from vtpbench.harness.pruning.model import PromptIds, VisionLanguageModel
from vtpbench.harness.pruning.schedule import (
    BudgetRule,
    EvidenceCollector,
    Schedule,
    SelectionObserver,
    ignore_selection,
    no_budget,
    resolve,
)
from vtpbench.harness.pruning.shared_choices import SharedChoices
from vtpbench.harness.pruning.shared_prefix import PrefilledBatch, distinct_prefixes, prefill_prefixes, prefill_whole
from vtpbench.harness.pruning.system_prompt import before_image
from vtpbench.harness.pruning.validation import original_index, selected_rows, validate
from vtpbench.pruners.base import Pruner, TokenView, rank, take
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.transfer import copy_to_device

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Prompt:
    """A question with its images; `key` names it and its image, with a number where there are several, for seeded draws."""

    key: str
    text: str
    images: Sequence[Image] = ()

    @property
    def image_keys(self) -> list[str]:
        """Name each image."""
        return [self.key] if len(self.images) == 1 else [f"{self.key}:{n}" for n in range(len(self.images))]


@dataclass(frozen=True)
class PipelineResult:
    """What came out of a batch.

    Attributes
    ----------
    texts : the answers
    images : what was left of each prompt's images at depth 0, those without a token included
    batch : as it entered the language model
    trace : what the decoder showed

    """

    texts: list[str]
    images: list[list[ImageTokens]]
    batch: PromptBatch
    trace: ForwardTrace


@dataclass(frozen=True)
class Pipeline:
    """A model with a pruner at a budget.

    Attributes
    ----------
    model : who sees and answers
    pruner : who takes tokens away
    budget : tokens for an image of so many
    observer : told of every selection
    share_prefix : whether prompts are prefilled behind the one system prompt of the model, and questions about a picture
        behind one prefill of it, where `distinct_prefixes` allows
    graphs : whether decoding steps keep their shapes and addresses, and passes of tower and decoder that come again are
        captured, where the device replays such

    """

    model: VisionLanguageModel
    pruner: Pruner = field(default_factory=EvidenceCollector)
    budget: BudgetRule = no_budget
    observer: SelectionObserver = ignore_selection
    share_prefix: bool = False
    graphs: bool = False

    def schedule(self, group: ImageGroup) -> Schedule:
        """Resolve what the pruner plans for images of a geometry; raises `Infeasible` or `Unsupported`."""
        budget = self.budget(group.tokens)
        return resolve(self.pruner, budget, group.tokens, group.grid, self.model.shape, self.observer)

    def run(self, prompts: Sequence[Prompt], max_new_tokens: int) -> PipelineResult:
        """Answer some prompts in one batch."""
        images = [image for prompt in prompts for image in prompt.images]
        keys = [key for prompt in prompts for key in prompt.image_keys]
        asked = [prompt.text for prompt in prompts for _ in prompt.images]
        left = self.select(self.encode(images), keys, asked)
        numbers = iter(range(len(images)))
        own = [[left[next(numbers)] for _ in prompt.images] for prompt in prompts]
        batch = self.assemble([prompt.text for prompt in prompts], own)
        texts, trace = self.generate(batch, max_new_tokens)
        return PipelineResult(texts, own, batch, trace)

    @torch.inference_mode()
    def encode(self, images: Sequence[Image]) -> list[VisionTokens]:
        """Step 1: run the vision tower; images are grouped by geometry."""
        return self.encode_groups(self.model.group(images) if images else ())

    @torch.inference_mode()
    def encode_groups(self, groups: Sequence[ImageGroup]) -> list[VisionTokens]:
        """Take step 1 with images that are preprocessed and grouped already."""
        encoded = []
        with self.model.captured_passes.applied(self.graphs):
            for group in groups:
                schedule = self.schedule(group)
                encode = self.model.blank if schedule.skips_tower else self.model.encode
                encoded.append(encode(group, schedule))
        return encoded

    @torch.inference_mode()
    def select(
        self, encoded: Sequence[VisionTokens], keys: Sequence[str], questions: Sequence[str] = ()
    ) -> dict[int, ImageTokens]:
        """Step 2: make the cut at depth 0, if there is one.

        `keys` and `questions` belong to the members of `encoded` by their numbers; a pruner may ignore what is asked.
        A wrong selection is refused by step 4, after the answer: to ask now would make the host wait for the device.
        """
        left: dict[int, ImageTokens] = {}
        for tokens in encoded:
            left.update(self._select(tokens, keys, questions))
        return left

    def _select(self, tokens: VisionTokens, keys: Sequence[str], questions: Sequence[str]) -> dict[int, ImageTokens]:
        schedule, features, index = tokens.schedule, tokens.features, tokens.index
        invalid, counts, projected = tokens.invalid, [features.shape[1]] * len(tokens.members), False
        if schedule.cuts and schedule.cuts[0].at == 0:
            view = self._view(tokens, keys, questions)
            selection, wrong = validate(self.model.choose(view, schedule), view, schedule.name)
            invalid = wrong if invalid is None else wrong | invalid
            features, index = selected_rows(features, selection), original_index(index, selection)
            counts, projected = [selection.k] * len(tokens.members), selection.projected
            if selection.valid is not None:  # how many tokens are left is known to the device alone: one wait for many images
                order = rank(selection.valid)  # stable: what is real comes first, in the order that it has
                features, index, counts = take(features, order), take(index, order), selection.valid.sum(dim=1).tolist()
        left = {}
        for row, (member, count) in enumerate(zip(tokens.members, counts, strict=True)):
            kept = features[row, :count], index[row, :count]
            image = ImageTokens(keys[member], *kept, tokens.original, tokens.grid, schedule, tokens.tower, invalid, projected)
            left[member] = self.model.in_sequence(image)
        return left

    def _view(self, tokens: VisionTokens, keys: Sequence[str], questions: Sequence[str]) -> TokenView:
        reads = tokens.schedule.pruner.reads_question  # who does not say so is asked once for all questions about a picture
        asked = tuple(questions[member] for member in tokens.members) if questions and reads else ()
        joint = any(need.kind == "joint" for need in tokens.schedule.needs)
        if joint and not asked:
            raise UserError(f"{tokens.schedule.name} goes by the question, and none is known here; give its text")
        shared = tokens.schedule.shared or SharedChoices()
        return TokenView(
            cut=tokens.schedule.cuts[0],
            stage=0,
            features=tokens.features.float(),
            index=tokens.index,
            grid=tokens.grid,
            shape=self.model.shape,
            keys=tuple(keys[member] for member in tokens.members),
            evidence=tokens.evidence,
            cls=tokens.cls,
            questions=asked,
            asked=shared.embed(asked, self.model.text_tower.embed) if joint else None,
        )

    @torch.inference_mode()
    def assemble(
        self, questions: Sequence[str], images: Sequence[Sequence[ImageTokens]], prompt_ids: PromptIds | None = None
    ) -> PromptBatch:
        """Step 3: build the prompts with exactly as many places as tokens are kept; images without a token leave no trace.

        `prompt_ids` tokenizes, by default each prompt anew.
        """
        kept = [[image for image in row if len(image.index)] for row in images]
        tokenize = prompt_ids or self.model.prompt_ids
        return self.assemble_ids([tokenize(question, len(own)) for question, own in zip(questions, kept, strict=True)], kept)

    @torch.inference_mode()
    def assemble_ids(self, prompts: Sequence[Sequence[int]], images: Sequence[Sequence[ImageTokens]]) -> PromptBatch:
        """Take step 3 with prompts that are tokenized already, one `image_id` for each image, also for one without a token."""
        flat: list[ImageTokens] = []
        words: list[int] = []
        rows: list[tuple[Span, ...]] = []
        for ids, own in zip(prompts, images, strict=True):
            if (named := sum(token == self.model.image_id for token in ids)) != len(own):
                raise AssertionError(f"a prompt names {named} images, {len(own)} were given")
            coming, spans = iter(own), list[Span]()
            for is_text, run in groupby(ids, key=lambda token: token != self.model.image_id):
                if is_text:
                    text = list(run)
                    words.extend(text)
                    before = spans.pop().length if spans and spans[-1].image is None else 0
                    spans.append(Span(before + len(text)))
                    continue
                for _ in run:
                    if len((image := next(coming)).index):
                        spans.append(Span(len(image.index), len(flat)))
                        flat.append(image)
            rows.append(tuple(spans))
        layout, left = PromptLayout(tuple(rows)), tuple(flat)
        heads = tuple(before_image(ids, self.model.image_id) for ids in prompts)
        embeds, positions = self._embed(words, layout, left), self.model.positions(layout, left)
        return PromptBatch(embeds, positions, layout, left, heads, self.model.added_rows(left))

    def _embed(self, ids: list[int], layout: PromptLayout, images: Sequence[ImageTokens]) -> Tensor:
        """Embed the text, project the vision tokens, and put both in their places; padding is zero."""
        model = self.model
        words: Tensor = model.model.get_input_embeddings()(copy_to_device(torch.tensor(ids), model.device))
        embeds = words.new_zeros(len(layout.rows) * layout.width, words.shape[-1])
        of_text, of_images = (copy_to_device(places, model.device) for places in layout.by_kind)
        embeds.index_copy_(0, of_text, words)
        if images:
            embeds.index_copy_(0, of_images, model.embed_images(images).to(embeds.dtype))
        return embeds.view(len(layout.rows), layout.width, -1)

    def generate(self, batch: PromptBatch, max_new_tokens: int) -> tuple[list[str], ForwardTrace]:
        """Step 4: `prefill`, then `decode`."""
        return self.decode(self.prefill(batch), max_new_tokens)

    @torch.inference_mode()
    def prefill(self, batch: PromptBatch) -> PrefilledBatch:
        """Take step 4 up to the first token; cuts inside the language model act here.

        With graphs, what is cached is valid until the next prefill.
        """
        from vtpbench.harness.pruning.key_value_cache import buffered  # imports transformers

        model = self.model
        new_cache = model.captured_steps.new_cache if self.graphs else partial(buffered, model.shape.decoder_layers)
        shared = None
        if self.share_prefix and not model.is_flash:  # which takes no padding in the middle
            if model.system_prompt.opens(batch.heads, batch.layout):
                batch = batch.behind(model.system_prompt)
            shared = distinct_prefixes(batch)
        with model.captured_passes.applied(self.graphs):
            if shared is None:
                begun = prefill_whole(model, batch, new_cache)
            else:
                begun = prefill_prefixes(model, batch, new_cache, shared)
        if self.graphs:
            model.last_prefill = ref(begun)
        return begun

    @torch.inference_mode()
    def decode(self, begun: PrefilledBatch, max_new_tokens: int) -> tuple[list[str], ForwardTrace]:
        """Answer greedily behind a prefill, which must be the last that was done.

        Raises `UserError` for a wrong selection, also for one that was made before.
        """
        model, trace = self.model, begun.trace
        if self.graphs and model.last_prefill() is not begun:
            raise AssertionError("a batch is decoded behind the last prefill: what an earlier one cached was written over")
        with layer_hooks(model.decoder, lambda: begun.start.pruning):
            answers = decode(model, begun.start, begun.logits, max_new_tokens, static=self.graphs)
        begun.pruning.raise_if_invalid()  # asked only now: earlier the host would wait for the device
        trace.written, trace.ended, trace.finite = [len(row) for row in answers.tokens], answers.ended, answers.finite
        return model.tokenizer.batch_decode(answers.tokens, skip_special_tokens=True), trace
