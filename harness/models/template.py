"""The chat template that a checkpoint brings along."""

from __future__ import annotations

import json
from pathlib import Path

from vtpbench.pruners.errors import Unsupported

PLACES = ("processor_config.json", "chat_template.json", "chat_template.jinja", "tokenizer_config.json")
"""Where a template may be; as in transformers, the first one counts."""


def chat_template(folder: Path) -> str | None:
    """Find the chat template of a checkpoint, None where it brings none; raises `Unsupported` for several in one place."""
    for name in PLACES:
        file = folder / name
        if not file.is_file():
            continue
        text = file.read_text(encoding="utf-8")
        found = text if file.suffix == ".jinja" else json.loads(text).get("chat_template")
        if found is not None:
            if not isinstance(found, str):
                raise Unsupported(f"{file} holds several chat templates; give the one to use as the model's `prompt`")
            return found
    return None
