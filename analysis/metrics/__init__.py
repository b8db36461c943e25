"""Metrics: the figures of metrics.json.

`summary.py` puts them together. One file for each kind: reconstruction, layer usage, disentanglement, identity, levels
of factors, memorization, Inception distances; `bootstrap.py` resamples where `analysis.probes.scores` has no interval.
Import from these files: this package itself loads nothing.
"""
