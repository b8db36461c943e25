"""Drawn faces with twenty known factors, in CelebA's folder structure: a data set for tests and for measuring.

For other rooms: `dataset.draw_dataset`, `drawing.draw_face`, `factors.FACTORS` and `factors.FACTOR_NAMES`.
"""
