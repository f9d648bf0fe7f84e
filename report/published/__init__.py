"""Figures from papers, and measured ones beside them."""
