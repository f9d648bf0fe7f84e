"""The text tower beside a CLIP vision tower, and the way into the space that both share: for pruners that read the question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vtpbench.harness.models.pretrained import read_complete, read_pretrained
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.transfer import copy_to_device

BATCH = 64
"""Texts that are embedded together."""


class ClipTextTower(nn.Module):
    """Of a CLIP model what LLaVA's checkpoints lack: text tower, and both projections; in float32."""

    def __init__(self, clip: Any, tokenizer: Any, device: torch.device) -> None:
        super().__init__()
        self._text, self._from_text = clip.text_model.to(device), clip.text_projection.to(device)
        self._norm, self._from_vision = clip.vision_model.post_layernorm.to(device), clip.visual_projection.to(device)
        self._tokenizer = tokenizer
        self._tokens: int = clip.config.text_config.max_position_embeddings

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return torch.device(self._from_text.weight.device)

    @classmethod
    def load(cls, folder: Path, width: int, device: torch.device) -> ClipTextTower:
        """Load from the folder of a CLIP model; raises `UserError` where its vision features are not `width` wide."""
        from transformers import AutoTokenizer, CLIPModel

        clip = read_complete(CLIPModel, folder, dtype=torch.float32).eval()
        found = clip.config.vision_config.hidden_size
        if found != width:
            raise UserError(f"text tower {folder} belongs to a vision tower {found} wide, this one is {width}; name another one")
        return cls(clip, read_pretrained(AutoTokenizer, folder), device)

    @torch.inference_mode()
    def project(self, features: Tensor) -> Tensor:
        """Map vision features `(tiles, n, width)` into the space that both towers share, `(tiles, n, joint)` float32."""
        projected: Tensor = self._from_vision(self._norm(features.float()))
        return projected

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embed texts in that space, `(texts, joint)` float32; each is cut off where CLIP's positions end."""
        plain = [" ".join(text.replace("<image>", " ").split()) for text in texts]
        once = list(dict.fromkeys(plain))
        rows = torch.cat([self._embed(once[start : start + BATCH]) for start in range(0, len(once), BATCH)])
        return rows[copy_to_device(torch.tensor([once.index(text) for text in plain]), self.device)]

    def _embed(self, texts: list[str]) -> Tensor:
        """Embed one batch; always as long as CLIP reads, so that no text depends on its neighbours."""
        ids = self._tokenizer(
            texts, padding="max_length", truncation=True, max_length=self._tokens, padding_side="right", return_tensors="pt"
        )["input_ids"]
        pooled = self._text(input_ids=copy_to_device(ids, self.device)).pooler_output
        embedded: Tensor = self._from_text(pooled)
        return embedded
