"""Retrieval: the bank of training spots, the search in it, and the methods that are built on it."""
