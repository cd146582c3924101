"""Phantom patients: contrast CT of a chest that nobody has, with exact labels. The documented import path."""

from heartseg_jax.imaging.phantom.generator import TISSUES, VERSION, Phantom, PhantomSpec, generate

__all__ = ["TISSUES", "VERSION", "Phantom", "PhantomSpec", "generate"]
