"""Tables of parts of the samples, and of what pruning breaks and mends."""
