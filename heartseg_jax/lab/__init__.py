"""The laboratory: arms, folds, training them, and the report."""
