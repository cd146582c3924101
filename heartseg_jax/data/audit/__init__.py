"""Looks at a dataset for leaks, near-duplicates and oddities."""
