"""Files that other systems open, from a prediction and its measurements: one exporter, one file."""
