"""Tissue maps of whole chests: real and modelled hearts set into a thorax, varied, and cut into slices."""
