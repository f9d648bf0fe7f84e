"""`vtpbench check`: the conformance kit for pruners, on tiny random models, without a download and in seconds."""

from vtpbench.harness.check.kit import CheckReport, PropertyResult, check
from vtpbench.harness.check.render import matrix, render

__all__ = ["CheckReport", "PropertyResult", "check", "matrix", "render"]
