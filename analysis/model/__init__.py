"""The Python API: a trained ladder that takes and gives pictures (docs/api.md). Import it as ``analysis.load``."""

REFINE_STEPS = 8
"""Steps of `refinement.py` where nothing else is said. It stands here because the command's help loads no torch."""
