"""`vtpbench train`: training of pruners on a model's features."""
