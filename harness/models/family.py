"""A model family: how its checkpoints are described and loaded; what a loaded model does is `VisionLanguageModel`."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch

from vtpbench.harness.models.pretrained import read_pretrained
from vtpbench.harness.models.template import chat_template
from vtpbench.harness.pruning.model import VisionLanguageModel
from vtpbench.pruners.base import ModelShape
from vtpbench.pruners.errors import Unsupported


class Family(VisionLanguageModel):
    """One loaded model of a family."""

    preprocessings: ClassVar[tuple[str, ...]]
    """What the family can do to pictures; the first is the default."""

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
