"""Extension of griffe: reads `name : what it is` in a docstring as a description, where NumPy's form expects a type."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

SECTION = re.compile(r"^(Parameters|Attributes|Raises|Returns|Yields)\n-+\n((?:.+\n?|\n(?= ))*)", re.MULTILINE)
ENTRY = re.compile(r"^(\S[^:\n]*?) : (.+)$", re.MULTILINE)


def described(text: str) -> str:
    """Move what stands behind ` : ` to a line of its own below; types come from the signature."""
    return SECTION.sub(lambda section: ENTRY.sub(r"\1\n    \2", section[0]), text)


class Descriptions(Extension):
    """Rewrites docstrings as they are collected."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite one docstring."""
        del kwargs
        if obj.docstring is not None:
            obj.docstring.value = described(obj.docstring.value)
