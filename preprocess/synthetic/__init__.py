"""Drawn faces with twenty known factors, in CelebA's folder structure: a data set for tests and for measuring."""
