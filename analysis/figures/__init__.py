"""Figures: everything that a report or a command draws.

``tiles`` arranges images, ``grids`` draws figures of decoded images, ``motion`` makes frames for sliders and GIFs,
``charts`` draws measurements, ``latent_arithmetic`` adds and subtracts codes, and ``gallery`` lists the figures of a
report with their captions. Import from the files: this package itself loads nothing.
"""
