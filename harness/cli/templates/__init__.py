"""Templates of the package that `vtpbench new-pruner` writes."""
