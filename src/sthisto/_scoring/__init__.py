"""The scoring engine: what was measured and predicted, what it scores gene by gene, and the means of these scores."""
