"""Compiled kernels of the layers in `nn`."""
