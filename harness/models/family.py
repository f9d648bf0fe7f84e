"""A model family: how its checkpoints are described and loaded; what a loaded model does is `VisionLanguageModel`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from vtpbench.harness.host.threads import in_threads, threads_beside
from vtpbench.harness.models.answer_rule import READS_NO_STOPS, AnswerRule
from vtpbench.harness.models.dimensions import TowerDimensions
from vtpbench.harness.models.pretrained import load_pretrained, read_pretrained
from vtpbench.harness.models.template import chat_template
from vtpbench.harness.models.token_boxes import WHOLE, divide
from vtpbench.harness.pruning.model import VisionLanguageModel
from vtpbench.pruners.base import Grid, ModelShape
from vtpbench.pruners.errors import Unsupported
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def join_pixels(parts: Sequence[Tensor]) -> Tensor:
    """Put what threads made one behind the other, all on the host.

    By numpy: torch would start threads in the one that reads pictures, which take a processor from the model.
    """
    return torch.from_numpy(np.concatenate([part.numpy() for part in parts]))


class Family(VisionLanguageModel):
    """One loaded model of a family."""

    preprocessings: ClassVar[tuple[str, ...]]
    """What the family can do to pictures; the first is the default, the last the stock processor's way."""
    default_template: ClassVar[str | None] = None
    """Prompt template, as Jinja, of checkpoints that bring none."""
    answers: ClassVar[AnswerRule] = READS_NO_STOPS
    """How lmms-eval's adapter of the family reads what a task asks for."""
    image_processor: Any
    """None where others make the pixels."""

    @abstractmethod
    def __init__(self, model: Any, tokenizer: Any, image_processor: Any, chat_template: str, preprocessing: str) -> None:
        """Stand around a model of `model_class`; the image processor is None where others make the pixels."""

    def pixel_values(
        self, images: Sequence[Image], ready: Callable[[Image], Image] = lambda image: image, **told: Any
    ) -> list[Tensor]:
        """Let the image processor make pixels of images made `ready`, beside a GPU in threads; as it gives them for some each."""

        def work(some: Sequence[Image]) -> Tensor:
            pixels: Tensor = self.image_processor([ready(image) for image in some], return_tensors="pt", **told)["pixel_values"]
            return pixels

        return in_threads(work, images, threads_beside(self.device))

    @staticmethod
    @abstractmethod
    def model_class() -> Any:
        """Class of transformers that holds the weights."""

    @classmethod
    def read_config(cls, folder: Path) -> Any:
        """Read the configuration of a checkpoint."""
        from transformers import AutoConfig

        return read_pretrained(AutoConfig, folder)

    @classmethod
    def tower(cls, folder: Path) -> Path | None:
        """Folder of a checkpoint's vision tower where that lies in one of its own, else None."""
        del folder
        return None

    @classmethod
    def clip_model(cls, config: Any) -> str | None:
        """Hub id of the CLIP model whose vision tower a model has, by the tower's sizes; None where none is known."""
        del config
        return None

    @classmethod
    def template(cls, folder: Path) -> str:
        """Prompt template of a checkpoint, as Jinja; else the family's own."""
        found = chat_template(folder) or cls.default_template
        if found is None:
            raise Unsupported(f"{folder} has no chat template; add the chat_template.jinja of the model that it was made from")
        return found

    @classmethod
    @abstractmethod
    def describe(cls, config: Any, preprocessing: str) -> tuple[ModelShape, int | None]:
        """Shape of a model with this configuration, and the vision tokens of an image where every image has equally many."""

    @classmethod
    def load(
        cls, path: Path, dtype: torch.dtype, device: torch.device, attention: str, preprocessing: str, template: str
    ) -> Family:
        """Load a checkpoint that was verified to be of this family, as transformers names its parts."""
        from transformers import AutoImageProcessor

        model = load_pretrained(cls.model_class(), path, device, dtype=dtype, attn_implementation=attention)
        tokenizer, images = cls.read_tokenizer(path), read_pretrained(AutoImageProcessor, path, backend="pil")
        return cls(model, tokenizer, images, template, preprocessing)

    @classmethod
    def read_tokenizer(cls, path: Path) -> Any:
        """Read the tokenizer of a checkpoint."""
        from transformers import AutoTokenizer

        return read_pretrained(AutoTokenizer, path)

    @classmethod
    def dimensions(cls, config: Any) -> tuple[TowerDimensions, tuple[int, ...]]:
        """Sizes of the vision tower, and widths through the projector behind it, empty for none: to count operations."""
        raise Unsupported(f"operations of {config.model_type} cannot be counted: {cls.__name__} has no `dimensions`")

    @classmethod
    def published_processor(cls, config: Any) -> Any:
        """Image processor with published settings for a model with random weights (`dummy:`), which comes without files."""
        raise Unsupported(f"{config.model_type} cannot have random weights: {cls.__name__} has no `published_processor`")

    @classmethod
    def tiny(cls, *, attention: str, dtype: torch.dtype) -> Family:
        """Build a random model of a few layers in a second, the same each time: for `vtpbench check`.

        Built-in families have theirs in `tiny.py`.
        """
        del attention, dtype
        raise Unsupported(f"{cls.__name__} has no tiny model to check with; define `tiny`")

    def expanded_ids(self, question: str, counts: Sequence[int]) -> torch.Tensor:
        """Tokenize a prompt as stock models take it, with as many placeholders as each image has tokens, `(1, width)`."""
        numbers, ids = iter(counts), list[int]()
        for token in self.token_ids(self.render(question, len(counts))):
            ids += [token] * (next(numbers) if token == self.image_id else 1)
        return torch.tensor([ids], device=self.device)

    def stock_inputs(self, question: str, images: Sequence[Image]) -> dict[str, Any]:
        """Give what the model's own `generate` takes for a question, made as by its stock processor: for `vtpbench check`."""
        del question, images
        raise Unsupported(f"{type(self).__name__} does not say what its stock model takes; define `stock_inputs`")

    def boxes(self, image: Image, grid: Grid) -> tuple[Image, NDArray[np.float64]]:
        """Divide the whole image evenly."""
        return image, divide(WHOLE, grid.height, grid.width)
