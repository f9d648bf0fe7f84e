"""transformers 5.24 calls a key-value cache `cache` where it was `past_key_values`, in arguments and in outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache as remembered
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

NAMES = ("cache", "past_key_values")


def cache_in(given: Mapping[str, Any]) -> Any:
    """Give the cache among the arguments of a call, or in an output of transformers; None where there is none."""
    return next((given[name] for name in NAMES if given.get(name) is not None), None)


def cache_argument(decoder: nn.Module) -> str:
    """Name the argument that a decoder takes its cache by; by its signature, as models from outside keep the older name."""
    return _argument(type(decoder).forward)


@remembered
def _argument(forward: Callable[..., Any]) -> str:
    taken = inspect.signature(forward).parameters
    return next((name for name in NAMES if name in taken), NAMES[-1])
