"""`vtpbench show`: images with the tokens that pruners keep."""
