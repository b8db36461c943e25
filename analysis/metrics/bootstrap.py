"""95 % intervals by the bootstrap: a statistic over samples drawn with replacement (Efron 1979).

A resample is stored as weights, the number of times that each sample was drawn. A weighted statistic then takes all
resamples in a few array operations.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

RESAMPLES = 200
SEED = 0
_CACHED_ELEMENTS = 10_000_000  # of one array of weights: 40 MB


@lru_cache(maxsize=2)
def resamples(n: int) -> np.ndarray:
    """How often each of n samples is drawn: (RESAMPLES, n) float32, read-only, with the samples' weights contiguous.

    Every row sums to n. Where n is so large that the array would fill the memory there are fewer rows, at least 50.
    """
    count = max(50, min(RESAMPLES, _CACHED_ELEMENTS // n))
    rng = np.random.default_rng(SEED)
    weights = np.empty((n, count), np.float32)
    for column in range(count):
        weights[:, column] = np.bincount(rng.integers(0, n, n), minlength=n)
    weights.flags.writeable = False
    return weights.T


def interval(values: np.ndarray) -> list[float]:
    """The middle 95 % of the values of a statistic over resamples, [low, high]; NaN and infinity do not count."""
    known = values[np.isfinite(values)]
    return [float(v) for v in np.percentile(known, [2.5, 97.5])] if len(known) else [float("nan")] * 2
