"""Measured workloads: real or seeded text, ground truth, sizes."""
