"""Configs: the schema of every field, loading and overrides, and the difference between two. No JAX here."""
