"""torch, imported when something of it is first used.

Planning and listing ask a pruner or a model family for numbers alone, and torch takes seconds to import. Modules that describe as
well as compute therefore take it from here; annotations, which are never evaluated, name its types as ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch as torch
else:
    from importlib import import_module
    from types import ModuleType

    class _OnUse(ModuleType):
        def __getattr__(self, name: str) -> object:
            return getattr(import_module(self.__name__), name)

    torch = _OnUse("torch")
