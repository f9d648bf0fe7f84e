"""vtpbench: fair, repeatable comparisons of vision token pruning."""


def __getattr__(name: str) -> str:
    """Look `__version__` up when it is asked for: reading the metadata costs a fifth of the command line's start."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("vtpbench")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"
