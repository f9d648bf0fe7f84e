"""Figures from papers, as data."""
