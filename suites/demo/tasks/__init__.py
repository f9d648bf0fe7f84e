"""lmms-eval tasks of the demo benchmarks."""
