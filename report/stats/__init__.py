"""Error bars and paired tests of relative accuracy; explained for users in docs/statistics.md."""
