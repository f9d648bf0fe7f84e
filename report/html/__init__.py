"""The report as one page for a browser."""

from vtpbench.report.html.page import html

__all__ = ["html"]
