"""`vtpbench check`: the conformance kits for pruners and for model families, without a download and in seconds."""

from vtpbench.harness.check.family_kit import FamilyReport, check_family
from vtpbench.harness.check.kit import CheckReport, PropertyResult, check
from vtpbench.harness.check.render import matrix, render, render_family

__all__ = ["CheckReport", "FamilyReport", "PropertyResult", "check", "check_family", "matrix", "render", "render_family"]
