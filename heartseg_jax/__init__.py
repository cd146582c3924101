"""Segmentation of eight structures of the heart in CT with U-Nets in JAX/Flax. Research use only."""

__version__ = "0.1.0"
