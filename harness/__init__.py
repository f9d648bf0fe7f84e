"""Everything that touches a model, a task or a disk."""
