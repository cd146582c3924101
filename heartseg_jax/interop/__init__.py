"""Weights from and to Keras: files read and written without Keras, and never a line of code from them run."""
