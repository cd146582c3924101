"""Everything that is drawn. matplotlib is imported here only."""
