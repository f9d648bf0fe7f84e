"""vtpbench: fair, repeatable comparisons of vision token pruning.

    import vtpbench

    model = vtpbench.load("demo")                            # or a hub id, a folder; or vtpbench.wrap(hf_model, processor)
    with model.pruned("visionzip", budget=48) as trace:
        text = model.answer(image, "What is in the picture?")
    trace.kept, trace.tokens_per_layer

    with vtpbench.pruned(hf_model, "fastv", budget=64):      # inside your own calls of transformers
        hf_model.generate(**processor(images=image, text=prompt, return_tensors="pt"))

    vtpbench.run("demo").to_pandas()                         # a suite, one row a cell

Nothing is imported before it is asked for. docs/python.md shows all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vtpbench.harness.api import Model, Results, SelectionTrace, load, pruned, read, run, wrap
    from vtpbench.pruners.errors import UserError

    __version__: str

__all__ = ["Model", "Results", "SelectionTrace", "UserError", "__version__", "load", "pruned", "read", "run", "wrap"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for: torch takes seconds, reading the version a fifth of the command line's start."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "__version__":
        return _version()
    if name == "UserError":
        from vtpbench.pruners import errors

        return errors.UserError
    from vtpbench.harness import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return __all__


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("vtpbench")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"
