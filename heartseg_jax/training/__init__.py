"""Losses, steps, guards, checkpoints and the training loop."""
