"""What tables and statistics agree on; explained for users in docs/statistics.md."""

REPLICATES = 2000
"""Bootstrap replicates behind a printed table."""
LEVEL = 0.95
"""Coverage that intervals aim at, and 1 - error rate of the tests of a block after correction."""
REFERENCE = "random"
"""Pruner that the rows of a block are tested against, unless another is named."""
BEST = "best"
"""Name, as a reference, of the row of a block with the highest average."""
