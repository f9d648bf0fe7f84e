"""Several workers, each with a model on a device of its own, share the questions of a suite."""
