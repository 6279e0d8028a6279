"""Training: the loop, devices, patches and augmentation."""
