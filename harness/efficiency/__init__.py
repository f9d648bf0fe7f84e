"""What pruning saves and what it costs: operations counted, time and memory measured."""
