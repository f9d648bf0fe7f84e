"""Tasks of lmms-eval that it does not have in this form; see `vtpbench list benchmarks`."""
