"""The three explicit steps of a model: encode images, prune, generate.

A family knows its processor, its vision tower, its prompt and its positions; what is common to all families is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL.Image import Image
from torch import Tensor, nn

from vtpbench.harness.models.template import chat_template
from vtpbench.harness.pruning.batch import ImageTokens, PromptBatch, VisionTokens
from vtpbench.harness.pruning.decoder_hooks import ForwardTrace, decoder_hooks
from vtpbench.harness.pruning.layout import PromptLayout, Span
from vtpbench.harness.pruning.request import Request
from vtpbench.harness.pruning.validation import original_index, selected_rows, validate
from vtpbench.pruners.base import Grid, ModelShape, Pruner, Selection, TokenView, rank, take
from vtpbench.pruners.errors import Unsupported
from vtpbench.pruners.transfer import copy_to_device

IMAGE_MARKER = "<image>"
"""How benchmarks mark an image inside a question."""


class Family(ABC):
    """One loaded model of a family."""

    shape: ModelShape
    model: Any
    """The transformers model; typed loosely because its parts are found by attribute."""
    tokenizer: Any
    image_id: int
    """Token that stands for an image in a rendered prompt."""
    chat_template: str
    preprocessings: ClassVar[tuple[str, ...]]
    """What the family can do to pictures; the first is the default."""
    pictures_at_once: int = 32
    """Pictures, tiles each on its own, that go through the vision tower together where it has a fixed size."""

    @classmethod
    def read_config(cls, folder: Path) -> Any:
        """Read the configuration of a checkpoint."""
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(folder)

    @classmethod
    def parts(cls, folder: Path) -> tuple[Path, ...]:
        """Folders with the weights of a checkpoint: its own, and what it refers to."""
        return (folder,)

    @classmethod
    def template(cls, folder: Path) -> str:
        """Prompt template of a checkpoint, as Jinja."""
        found = chat_template(folder)
        if found is None:
            raise Unsupported(f"{folder} has no chat template; add the chat_template.jinja of the model that it was made from")
        return found

    @classmethod
    @abstractmethod
    def describe(cls, config: Any, preprocessing: str) -> tuple[ModelShape, int | None]:
        """Shape of a model with this configuration, and the vision tokens of an image where every image has equally many."""

    @classmethod
    @abstractmethod
    def load(
        cls, path: Path, dtype: torch.dtype, device: torch.device, attention: str, preprocessing: str, template: str
    ) -> Family:
        """Load a checkpoint that was verified to be of this family."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return torch.device(self.model.device)

    @property
    @abstractmethod
    def decoder(self) -> nn.Module:
        """The text model, with `layers` and `rotary_emb`."""

    @property
    def tower_layers(self) -> Sequence[nn.Module]:
        """Layers of the vision tower that tokens can leave; none unless a family has such."""
        return ()

    @abstractmethod
    def encode(self, images: Sequence[Image], request: Request) -> list[VisionTokens]:
        """Step 1: run the vision tower; images are grouped by geometry."""

    def blank(self, members: tuple[int, ...], grid: Grid, original: int) -> VisionTokens:
        """Stand for images of which nothing is wanted, without running the tower."""
        features = torch.empty(len(members), 0, self.shape.vision_width, dtype=self.model.dtype, device=self.device)
        index = torch.empty(len(members), 0, dtype=torch.int64, device=self.device)
        return VisionTokens(members, features, index, None, grid, {}, original, ())

    @abstractmethod
    def project(self, features: Tensor) -> Tensor:
        """Map features `(n, width)` into the language model's space."""

    def positions(self, layout: PromptLayout, images: Sequence[ImageTokens]) -> Tensor:
        """Position ids of the pruned prompts; counted from 0 in each prompt unless a family knows better."""
        del images
        return (layout.valid(self.device).long().cumsum(-1) - 1).clamp(min=0)

    def render(self, question: str, n_images: int) -> str:
        """Put a question and its images into the model's prompt template; images come first, wherever the question marks them."""
        text = question.replace(IMAGE_MARKER, "")
        content = [*({"type": "image"} for _ in range(n_images)), {"type": "text", "text": text}]
        message = [{"role": "user", "content": content}]
        template = self.chat_template
        return str(
            self.tokenizer.apply_chat_template(message, chat_template=template, add_generation_prompt=True, tokenize=False)
        )

    def token_ids(self, prompt: str) -> list[int]:
        """Tokenize a rendered prompt, one `image_id` for each image."""
        begin = self.tokenizer.bos_token
        begun = begin is not None and prompt.startswith(begin)  # templates may write it themselves
        return list(self.tokenizer(prompt, add_special_tokens=not begun)["input_ids"])

    @torch.inference_mode()
    def select(
        self,
        tokens: VisionTokens,
        keys: Sequence[str],
        pruner: Pruner,
        budget: int | None,
        questions: Sequence[str] = (),
    ) -> dict[int, ImageTokens]:
        """Step 2: make the cut at depth 0, if there is one; `budget` None means no budget (vanilla).

        `keys` and `questions` belong to the members of `tokens` by their numbers; a pruner may ignore what is asked.
        A wrong choice is refused by step 3, after the answer: to ask now would make the host wait for the device.
        """
        n, features = tokens.original, tokens.features
        cuts = pruner.cuts(n if budget is None else budget, n, self.shape)
        index, invalid, counts = tokens.index, tokens.invalid, [features.shape[1]] * len(tokens.members)
        if cuts and cuts[0].at == 0:
            names = tuple(keys[m] for m in tokens.members)
            asked = tuple(questions[m] for m in tokens.members) if questions else ()
            view = TokenView(
                cut=cuts[0],
                stage=0,
                features=features.float(),
                index=index,
                grid=tokens.grid,
                keys=names,
                evidence=tokens.evidence,
                cls=tokens.cls,
                shape=self.shape,
                questions=asked,
            )
            keep, wrong = validate(self.choose(view, pruner), view, pruner)
            invalid = wrong if invalid is None else wrong | invalid
            features, index = selected_rows(features, keep), original_index(index, keep)
            counts = [keep.k] * len(tokens.members)
            if keep.valid is not None:  # how many tokens are left is known to the device alone: one wait for many images
                order = rank(keep.valid)  # stable: what is real comes first, in the order that it has
                features, index, counts = take(features, order), take(index, order), keep.valid.sum(dim=1).tolist()
        found = {}
        for row, (member, count) in enumerate(zip(tokens.members, counts, strict=True)):
            kept = features[row, :count], index[row, :count]
            found[member] = self.pack(ImageTokens(keys[member], *kept, n, tokens.grid, cuts, tokens.tower, invalid))
        return found

    def choose(self, view: TokenView, pruner: Pruner) -> Selection:
        """Let the pruner choose at depth 0."""
        return pruner.apply(view)

    def pack(self, image: ImageTokens) -> ImageTokens:
        """Put what is left of an image into the order in which it enters the language model."""
        return image

    @torch.inference_mode()
    def assemble(self, questions: Sequence[str], images: Sequence[Sequence[ImageTokens]]) -> PromptBatch:
        """Build the prompts with exactly as many places as tokens are kept; images without a token leave no trace."""
        kept = [[image for image in row if len(image.index)] for row in images]
        flat = tuple(image for row in kept for image in row)
        numbered = iter(enumerate(flat))
        ids: list[int] = []
        rows: list[tuple[Span, ...]] = []
        for question, own in zip(questions, kept, strict=True):
            parts: list[Span] = []
            for token in self.token_ids(self.render(question, len(own))):
                if token == self.image_id:
                    number, image = next(numbered)
                    parts.append(Span(len(image.index), number))
                    continue
                ids.append(token)
                if parts and parts[-1].image is None:
                    parts[-1] = Span(parts[-1].length + 1)
                else:
                    parts.append(Span(1))
            rows.append(tuple(parts))
        layout = PromptLayout(tuple(rows))
        if len(layout.places) != len(flat):
            raise AssertionError(f"the prompts name {len(layout.places)} images, {len(flat)} were given")
        return PromptBatch(self._embed(ids, layout, flat), self.positions(layout, flat), layout, flat)

    def enter(self, images: Sequence[ImageTokens]) -> Tensor:
        """Embed what is left of images, one after the other, in the language model's space."""
        return self.project(torch.cat([image.features for image in images]))

    def _embed(self, ids: list[int], layout: PromptLayout, images: Sequence[ImageTokens]) -> Tensor:
        """Embed the text, project the vision tokens, and put both in their places; padding is zero."""
        words: Tensor = self.model.get_input_embeddings()(copy_to_device(torch.tensor(ids), self.device))
        embeds = words.new_zeros(len(layout.rows), layout.width, words.shape[-1])
        vision = self.enter(images) if images else words[:0]
        next_word, next_row = 0, 0
        for r, row in enumerate(layout.rows):
            column = layout.width - layout.lengths[r]
            for part in row:
                if part.image is None:
                    embeds[r, column : column + part.length] = words[next_word : next_word + part.length]
                    next_word += part.length
                else:
                    embeds[r, column : column + part.length] = vision[next_row : next_row + part.length]
                    next_row += part.length
                column += part.length
        return embeds

    @torch.inference_mode()
    def generate(self, batch: PromptBatch, pruner: Pruner, max_new_tokens: int) -> tuple[list[str], ForwardTrace]:
        """Step 3: prefill and decode greedily; cuts inside the language model act here."""
        from transformers import GenerationConfig

        needs = pruner.needs(self.shape)
        pad = self.tokenizer.pad_token_id
        settings = GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, use_cache=True, pad_token_id=pad)
        with decoder_hooks(self.decoder, pruner, batch, needs) as trace:
            tokens = self.model.generate(
                inputs_embeds=batch.embeds,
                attention_mask=batch.layout.valid(self.device).long(),
                position_ids=batch.positions,
                generation_config=settings,
            )
        return self.tokenizer.batch_decode(tokens, skip_special_tokens=True), trace
