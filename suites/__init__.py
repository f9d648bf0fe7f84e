"""Suites: the YAML files that say what is compared."""
