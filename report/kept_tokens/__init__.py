"""Pictures of the vision tokens that pruners keep."""
