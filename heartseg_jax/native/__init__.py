"""Kernels in C for convolution on a CPU: the source, and how it is compiled on the user's machine and loaded."""
