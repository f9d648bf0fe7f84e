"""The Python API, as `vtpbench` exports it: models to ask, pruning in somebody else's code, runs and their results."""

from vtpbench.harness.api.generate_hooks import pruned
from vtpbench.harness.api.model import Model, load, wrap
from vtpbench.harness.api.results import Results, read, run
from vtpbench.harness.api.trace import SelectionTrace, TracedImage

__all__ = ["Model", "Results", "SelectionTrace", "TracedImage", "load", "pruned", "read", "run", "wrap"]
