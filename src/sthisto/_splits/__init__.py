"""Which spots are trained on, choose the epoch, and are tested."""
