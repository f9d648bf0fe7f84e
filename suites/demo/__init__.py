"""The embedded model, its benchmarks, and the scripts that made them."""
