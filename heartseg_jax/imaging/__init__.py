"""Medical images as numpy arrays. No JAX here."""
