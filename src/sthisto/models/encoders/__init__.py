"""Image encoders, and the features that they make of patches."""
