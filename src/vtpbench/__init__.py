"""vtpbench: fair, repeatable comparisons of vision token pruning."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("vtpbench")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
