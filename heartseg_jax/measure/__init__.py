"""Measurements of predicted structures, in mm and mL: numpy and scipy, no files."""
