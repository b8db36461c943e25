"""Metrics: the figures of metrics.json.

`summary.py` puts them together. One file for each kind: reconstruction, layer usage, disentanglement, identity, levels
of factors, memorization, Inception distances, morphology of digits; `bootstrap.py` gives their intervals. Import from
these files: this package itself loads nothing.
"""
