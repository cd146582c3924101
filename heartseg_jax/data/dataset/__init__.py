"""The dataset folder: its records, reading, writing, splits and description."""
