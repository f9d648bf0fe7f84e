"""A model's configuration as its file says it, for describing the model without transformers, which imports torch.

Only plain facts are taken: whole numbers, yes or no, lists of them, and the words and fractions below. What a file leaves to the
defaults of transformers, says in an older form, or says wrongly is for transformers to read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
WORDS = ("model_type", "vision_feature_select_strategy", "vision_aspect_ratio", "rope_type", "layer_types")
"""What is said in words."""
FRACTIONS = ("downsample_ratio",)
"""What is said as a fraction."""
UNKNOWN_TO = {
    "llama": ("sliding_window",),
    "qwen2": ("head_dim",),
    "qwen2_5_vl_text": ("head_dim",),
    "qwen2_vl_text": ("head_dim",),
    "qwen3_vl_text": ("use_sliding_window", "layer_types"),
}
"""What kinds of models do not have, so that a family which asks for it may take it for absent."""


class NotWritten(Exception):
    """A configuration file does not say this plainly."""


class WrittenConfig:
    """A configuration of which only what its file says can be asked.

    An attribute that it does not say raises `NotWritten`, also where `getattr` is given a default: transformers may have another.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __getattr__(self, name: str) -> Any:
        if name in UNKNOWN_TO.get(self._values.get("model_type", ""), ()) and name not in self._values:
            raise AttributeError(name)
        if name not in self._values:
            raise NotWritten(name)
        value = self._values[name]
        if isinstance(value, Mapping):
            return WrittenConfig(value) if name.endswith("_config") else value
        if not (name in FRACTIONS and isinstance(value, float)) and not _is_plain(value, name in WORDS):
            raise NotWritten(name)
        return value


def _is_plain(value: Any, words: bool) -> bool:
    if isinstance(value, list):
        return all(_is_plain(each, words) for each in value)
    if words:
        return isinstance(value, str)
    return value is None or isinstance(value, int)


def facts_of(values: Mapping[str, Any], read: Callable[[], Any], describe: Callable[[Any], T]) -> T:
    """Describe a model by what its file says or, where that is not enough, by what transformers makes of it.

    Parameters
    ----------
    values : of the file
    read : gives the configuration as transformers reads it
    describe : asks a configuration for attributes

    """
    try:
        return describe(WrittenConfig(values))
    except NotWritten:
        return describe(read())
