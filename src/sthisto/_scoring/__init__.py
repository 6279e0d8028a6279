"""Scores of predictions: what was measured, what each prediction scores, and their means."""
