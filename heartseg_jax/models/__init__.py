"""Flax modules. No files here."""
