"""Probes: how well the code of each layer predicts what is known of an image.

`dataset.py` makes targets and samples, `estimators.py` fits linear, boosted-trees and MLP probes, `mlp.py` holds the
multi-task network, `scores.py` the scores, and `table.py` prints them. Import from these files: this package itself
loads nothing.
"""
