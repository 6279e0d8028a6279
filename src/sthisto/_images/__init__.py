"""Pixels: pyramids, patches, prefetching and tissue. NumPy only."""
