"""Verbs that look and measure."""
