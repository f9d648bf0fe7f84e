"""The leaderboard: results as a static site."""

from vtpbench.report.site.site import site

__all__ = ["site"]
