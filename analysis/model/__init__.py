"""The Python API: a trained ladder that takes and gives pictures (docs/api.md). Import it as ``analysis.load``."""
