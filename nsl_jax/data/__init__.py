"""Data: named sources, label splits, row sampling and augmentation."""
