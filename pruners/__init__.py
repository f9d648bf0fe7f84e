"""Pruners: small frozen dataclasses that choose vision tokens."""
