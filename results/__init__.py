"""What runs write, next to what papers published; only the latter is packaged."""
