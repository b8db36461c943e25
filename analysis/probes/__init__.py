"""Probes: how well the code of each layer predicts what is known of an image.

`dataset.py` makes targets and samples, `predictors.py` fits linear and MLP probes, `multitask.py` says what the outputs
of a network for all targets mean, `scores.py` scores, `probe.py` puts them together, and `table.py` prints the result;
`digit_morphology.py` measures digits. Import from these files: this package itself loads nothing.
"""
