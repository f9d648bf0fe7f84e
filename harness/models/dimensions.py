"""The sizes of a model that decide how many operations it takes, read off its configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    from vtpbench.harness.models.family import Family


@dataclass(frozen=True)
class TowerDimensions:
    """A vision tower.

    Attributes
    ----------
    layers, width, intermediate : as in the configuration
    matrices : of an MLP; 2, or 3 where it is gated
    patch : values of a patch, all colours and frames
    patches : of a vision token
    cls : tokens of a tile beside its patches
    window : side of an attention window in vision tokens; None = no windows
    full : layers in which every token of a tile sees every other
    merger : widths through the MLP that makes vision tokens of patches, behind the layers; empty = none
    mergers : how many such MLPs each token goes through side by side

    """

    layers: int
    width: int
    intermediate: int
    matrices: int
    patch: int
    patches: int
    cls: int
    window: int | None
    full: int
    merger: tuple[int, ...]
    mergers: int = 1

    @property
    def parameters(self) -> int:
        """Weights of its matrices; biases, norms and position embeddings, under 1 %, are not counted."""
        layer = self.width * (4 * self.width + self.matrices * self.intermediate)
        return self.layers * layer + self.patch * self.width + self.mergers * _weights(self.merger)


@dataclass(frozen=True)
class DecoderDimensions:
    """A language model with gated MLPs; `heads` of queries share `kv_heads` of keys and values."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool = False
    """Whether one matrix embeds tokens and gives the logits."""

    @property
    def cached(self) -> int:
        """Numbers that a token leaves behind in each layer: its keys and its values."""
        return 2 * self.kv_heads * self.head_dim

    @property
    def parameters(self) -> int:
        """Weights of its matrices, embeddings among them; biases and norms, under 1 %, are not counted."""
        attention = 2 * self.width * self.head_dim * (self.heads + self.kv_heads)
        words = self.vocabulary * self.width * (1 if self.tied else 2)
        return self.layers * (attention + 3 * self.width * self.intermediate) + words


@dataclass(frozen=True)
class Dimensions:
    """A model; `projector` holds the widths through the MLP between tower and decoder, empty where there is none."""

    tower: TowerDimensions
    projector: tuple[int, ...]
    decoder: DecoderDimensions

    @classmethod
    def from_config(cls, config: Any) -> Dimensions:
        """Read the configuration of a transformers model; raises `UserError` for an unsupported architecture."""
        from vtpbench.harness.models.registry import TRANSFORMERS, entries

        if config.model_type not in entries():
            known = ", ".join(TRANSFORMERS)
            raise UserError(f"operations of architecture {config.model_type} cannot be counted; supported: {known}")
        return cls.of(entries()[config.model_type].load(), config)

    @classmethod
    def of(cls, family: type[Family], config: Any) -> Dimensions:
        """Let a family read the configuration of one of its models; raises `Unsupported` where it cannot."""
        tower, projector = family.dimensions(config)
        return cls(tower, projector, _decoder(config.text_config, bool(config.tie_word_embeddings)))

    @property
    def parameters(self) -> int:
        """Weights of all matrices."""
        return self.tower.parameters + _weights(self.projector) + self.decoder.parameters


def _weights(widths: tuple[int, ...]) -> int:
    """Weights of an MLP through these widths."""
    return sum(a * b for a, b in pairwise(widths))


def _decoder(text: Any, tied: bool) -> DecoderDimensions:
    return DecoderDimensions(
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        intermediate=text.intermediate_size,
        vocabulary=text.vocab_size,
        tied=tied,
    )


def sides(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width, of which a configuration file may say one alone where they are equal."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def clip_dimensions(config: Any) -> tuple[TowerDimensions, tuple[int, ...]]:
    """Sizes of a tower that is built as CLIP's, and of the projector of two layers behind it."""
    vision, width = config.vision_config, config.text_config.hidden_size
    tower = TowerDimensions(
        layers=vision.num_hidden_layers,
        width=vision.hidden_size,
        intermediate=vision.intermediate_size,
        matrices=2,
        patch=vision.num_channels * prod(sides(vision.patch_size)),
        patches=1,
        cls=1,
        window=None,
        full=vision.num_hidden_layers,
        merger=(),
    )
    return tower, (vision.hidden_size, width, width)
