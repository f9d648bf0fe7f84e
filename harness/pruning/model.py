"""What the pipeline needs of a vision language model: the steps that differ from family to family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property, lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from vtpbench.harness.pruning.batch import ImageGroup, ImageTokens, PromptBatch, VisionTokens
from vtpbench.harness.pruning.cache_argument import cache_argument
from vtpbench.harness.pruning.captured_passes import STEPS, Capture, CapturedPasses, cuda_graphs, named
from vtpbench.harness.pruning.captured_steps import CapturedSteps
from vtpbench.harness.pruning.layout import PromptLayout
from vtpbench.harness.pruning.quoted_tokens import MARK, QuotedTokens
from vtpbench.harness.pruning.schedule import Schedule
from vtpbench.harness.pruning.system_prompt import SystemPrompt
from vtpbench.pruners.base import Grid, ModelShape, Selection, TokenView
from vtpbench.pruners.errors import Unsupported
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

IMAGE_MARKER = "<image>"
"""How benchmarks mark an image inside a question."""
PROMPTS = 1024
"""Prompts whose tokens are remembered: more than the questions of a window."""
PromptIds = Callable[[str, int], Sequence[int]]
"""Gives the tokens of a question's prompt with so many images."""


class TextTower(Protocol):
    """The other half of the model that a CLIP vision tower was trained in."""

    def project(self, features: Tensor) -> Tensor:
        """Map vision features `(tiles, n, width)` into the space that both towers share, `(tiles, n, joint)` float32."""
        ...

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embed texts in that space, `(texts, joint)` float32."""
        ...


class VisionLanguageModel(ABC):
    """One loaded model; `vtpbench.harness.models` has the families."""

    shape: ModelShape
    model: Any
    """The transformers model; typed loosely because its parts are found by attribute."""
    tokenizer: Any
    image_id: int
    """Token that stands for an image in a rendered prompt."""
    chat_template: str
    system: str | None = None
    """System message of every prompt; None = what the template says of its own."""
    vision_arguments: tuple[str, ...] = ()
    """Arguments of the stock decoder, beside embeddings, through which the stock model hands it vision features."""
    images_per_pass: int = 32
    """Images, tiles each on its own, that go through the vision tower together where it has a fixed size."""

    last_prefill: Callable[[], object] = staticmethod(lambda: None)
    """Gives what the last pass over prompts gave whose keys and values the next one overwrites, as long as somebody has it."""
    open_text_tower: Callable[[], TextTower] | None = None
    """Loads what `ModelShape.text_tower` names."""

    @cached_property
    def text_tower(self) -> TextTower:
        """The text tower beside the vision tower, loaded when first something is asked of it."""
        if self.open_text_tower is None:
            raise Unsupported(f"no text tower is known beside the vision tower of {self.shape.family}")
        return self.open_text_tower()

    @property
    def system_prompt(self) -> SystemPrompt:
        """What prompts begin with, prefilled when first it is asked for by a template, on a device and in a number format."""
        key = self.device, self.model.dtype, self.chat_template, self.system
        if key not in self._system_prompts:
            self._system_prompts[key] = SystemPrompt.of(self)
        return self._system_prompts[key]

    @cached_property
    def _system_prompts(self) -> dict[Hashable, SystemPrompt]:
        return {}

    @property
    def has_graphs(self) -> bool:
        """Whether steps and passes can be replayed: on a GPU, by kernels that take a mask of columns."""
        return self.device.type == "cuda" and not self.is_flash

    @cached_property
    def _capture(self) -> Capture | None:
        return cuda_graphs(self.device) if self.device.type == "cuda" else None

    @cached_property
    def captured_steps(self) -> CapturedSteps:
        """Decoding steps that are replayed as graphs, where the device has such."""
        return CapturedSteps(self, self._capture)

    @cached_property
    def captured_passes(self) -> CapturedPasses:
        """Passes of the tower and over prompts that are replayed as graphs, where the device has such."""
        return CapturedPasses(self._capture, self.device, self.model.dtype)

    @property
    def holds_memory(self) -> bool:
        """Whether there are graphs, or buffers for them, that `forget_graphs` would drop."""
        return any(vars(self)[name].holds_memory for name in ("captured_steps", "captured_passes") if name in vars(self))

    def forget_graphs(self) -> None:
        """Drop all that was captured, and the memory in which it lies."""
        vars(self).pop("captured_steps", None)
        vars(self).pop("captured_passes", None)

    def graphs_of(self, pruner: str) -> tuple[list[str], dict[str, str]]:
        """Say what of a pruner's rows was replayed so far, and what was not, with the reason; all by name."""
        passes, steps = self.captured_passes, self.captured_steps
        own = {named(kind, whose) for kind in ("tower", "prefill") for whose in (None, pruner)}
        replayed = [*sorted(own & passes.replays.keys()), *([STEPS] if steps.captured else [])]
        refused = {name: why for name, why in passes.refused.items() if name in own}
        return replayed, refused | ({} if steps.refused is None else {STEPS: steps.refused})

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return torch.device(self.model.device)

    @property
    @abstractmethod
    def decoder(self) -> nn.Module:
        """The text model, with `layers` and `rotary_emb`."""

    @property
    def is_flash(self) -> bool:
        """Whether the decoder's attention kernel is a FlashAttention, which takes one flag per column as a mask."""
        config: Any = self.decoder.config
        return "flash" in config._attn_implementation

    @property
    @abstractmethod
    def vision_tower(self) -> nn.Module:
        """The vision tower: its first argument are pixels."""

    @property
    def tower_layers(self) -> Sequence[nn.Module]:
        """Layers of the vision tower that tokens can leave; none unless a family has such."""
        return ()

    @property
    def fixed_geometry(self) -> ImageGroup | None:
        """Grid and tokens of every image, as a group without members; None where images differ."""
        return None

    @abstractmethod
    def group(self, images: Sequence[Image]) -> Sequence[ImageGroup]:
        """Preprocess images, those of equal geometry together."""

    @abstractmethod
    def group_pixels(self, pixels: Tensor, sizes: Tensor | None, counts: Sequence[int]) -> Sequence[ImageGroup]:
        """Group images that the stock processor of the model has preprocessed.

        Parameters
        ----------
        pixels : what the stock model gives its tower for all images of some prompts
        sizes : `(images, ...)` what it says of their sizes, None where that is not known
        counts : tokens of each image or, where that is not known, of each run of them in the prompts

        Raises
        ------
        UserError : it cannot be told how the tokens of the images lie

        """

    @abstractmethod
    def pixels(self, group: ImageGroup) -> Tensor:
        """Give what the tower gets of each image of a group at its own size, `(images, ...)`."""

    @abstractmethod
    def encode(self, group: ImageGroup, schedule: Schedule) -> VisionTokens:
        """Run the vision tower over a group, and collect what the schedule needs of it."""

    def blank(self, group: ImageGroup, schedule: Schedule) -> VisionTokens:
        """Stand for images of which nothing is wanted, without running the tower."""
        count = len(group.members)
        features = torch.empty(count, 0, self.shape.vision_width, dtype=self.model.dtype, device=self.device)
        index = torch.empty(count, 0, dtype=torch.int64, device=self.device)
        return VisionTokens(group.members, features, index, None, group.grid, {}, group.tokens, schedule, ())

    def choose(self, view: TokenView, schedule: Schedule) -> Selection:
        """Let the pruner choose at depth 0."""
        return schedule.choose(view)

    def in_sequence(self, image: ImageTokens) -> ImageTokens:
        """Put what is left of an image into the order in which it enters the language model."""
        return image

    @abstractmethod
    def project(self, features: Tensor) -> Tensor:
        """Map features `(n, width)` into the language model's space."""

    def embed_images(self, images: Sequence[ImageTokens]) -> Tensor:
        """Embed what is left of images, one after the other, in the language model's space, `(n, dim)`.

        Features that a pruner gave in that space already are left as they are.
        """
        runs = [(done, [image.features for image in run]) for done, run in groupby(images, lambda image: image.projected)]
        rows = [torch.cat(features) if done else self.project(torch.cat(features)) for done, features in runs]
        return torch.cat(rows) if len(rows) > 1 else rows[0]

    def added_rows(self, images: Sequence[ImageTokens]) -> tuple[Tensor, ...]:
        """Give for each image `(levels, k, dim)` what is added to its tokens behind decoder layers 0, 1, ... (DeepStack).

        Empty where a family has no such features.
        """
        del images
        return ()

    def stock_arguments(self, batch: PromptBatch, width: int) -> dict[str, Any]:
        """Write `added` of a batch as the stock decoder takes it, for prompts that go on up to `width` columns."""
        del batch, width
        return {}

    def next_logits(self, embeds: Tensor, positions: Tensor, mask: Tensor | None, cache: Any) -> Tensor:
        """Run the decoder over `(rows, columns, dim)` behind `cache`; logits of the last column, `(rows, vocabulary)` float32."""
        return self.logits(self.last_states(embeds, positions, mask, cache))

    def last_states(self, embeds: Tensor, positions: Tensor, mask: Tensor | None, cache: Any) -> Tensor:
        """Run the decoder over `(rows, columns, dim)` behind `cache`; states of the last column, `(rows, 1, dim)`."""
        return self.states(embeds, positions, mask, cache)[:, -1:]

    def states(self, embeds: Tensor, positions: Tensor, mask: Tensor | None, cache: Any) -> Tensor:
        """Run the decoder over `(rows, columns, dim)` behind `cache`; states of as many.

        A mask of two dimensions is what transformers calls an attention mask, one of four says what each token sees.
        """
        kept = {cache_argument(self.decoder): cache, "use_cache": True}
        found: Tensor = self.decoder(inputs_embeds=embeds, position_ids=positions, attention_mask=mask, **kept).last_hidden_state
        return found

    def logits(self, states: Tensor) -> Tensor:
        """Take states of one column, `(rows, 1, dim)`, to logits, `(rows, vocabulary)` float32."""
        logits: Tensor = self.model.get_output_embeddings()(states)[:, -1]
        return logits.float()

    def positions(self, layout: PromptLayout, images: Sequence[ImageTokens]) -> Tensor:
        """Position ids of the pruned prompts; counted from 0 in each prompt unless a family knows better."""
        del images
        return (layout.valid(self.device).long().cumsum(-1) - 1).clamp(min=0)

    @abstractmethod
    def boxes(self, image: Image, grid: Grid) -> tuple[Image, NDArray[np.float64]]:
        """Find the box of every token, in the tower's order.

        Returns
        -------
        The picture to draw on: the image or, where an enlarged one is cut into tiles, the image twice, for the base tile above
        (or left) and for the others below. And (n, 4): left, top, right, bottom as fractions of it. What lies on padding is cut
        off; a token that shows only padding has no area.

        """

    def render(self, question: str, n_images: int) -> str:
        """Put a question and its images into the model's prompt template; images come first, wherever the question marks them.

        Special tokens that the question quotes are marked as text, see `QuotedTokens`.
        """
        text = self.quoted.mark(question.replace(IMAGE_MARKER, ""))
        content = [*({"type": "image"} for _ in range(n_images)), {"type": "text", "text": text}]
        messages = [{"role": "user", "content": content}]
        if self.system is not None:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": self.system}]})
        template = self.chat_template
        return str(
            self.tokenizer.apply_chat_template(messages, chat_template=template, add_generation_prompt=True, tokenize=False)
        )

    def token_ids(self, prompt: str) -> list[int]:
        """Tokenize a rendered prompt, one `image_id` for each image."""
        begin = self.tokenizer.bos_token
        begun = begin is not None and prompt.startswith(begin)  # templates may write it themselves
        if MARK in prompt:
            return self.quoted.token_ids(prompt, begin=not begun)
        return list(self.tokenizer(prompt, add_special_tokens=not begun)["input_ids"])

    def prompt_ids(self, question: str, n_images: int) -> tuple[int, ...]:
        """Render and tokenize a question's prompt with so many images."""
        return tuple(self.token_ids(self.render(question, n_images)))

    @cached_property
    def remembered_prompt_ids(self) -> PromptIds:
        """`prompt_ids` that knows the prompts it was asked for last, as every row of a sweep asks for the same.

        It goes by the template, system message and tokenizer that the model had then.
        """
        return lru_cache(PROMPTS)(self.prompt_ids)

    @cached_property
    def quoted(self) -> QuotedTokens:
        """What is special to the tokenizer: questions that quote it mean its text."""
        in_vocabulary = self.image_id >= 0  # the original LLaVA splits prompts at the marker instead
        return QuotedTokens(
            self.tokenizer, self.tokenizer.convert_ids_to_tokens(self.image_id) if in_vocabulary else IMAGE_MARKER
        )
