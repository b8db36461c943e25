"""Does the model memorize its training images? (an open question of the paper's section 5)

And how similar are its samples to held-out images, by a distance that needs no downloaded network?
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from analysis.classifier.classifier import AttributeClassifier
from analysis.inputs.context import EvalContext, Progress
from analysis.inputs.encode import decode_to_measure, in_chunks
from analysis.probes.scores import QUANTILE, mean
from pipeline.data.counter_rng import Stream, normal
from pipeline.losses.mmd import squared_distances
from pipeline.model.latents import split_layers

SIDE = 32  # pixels a side at which images are compared
QUERIES = 500
MIN_FEATURES = 4  # images of each kind that an estimate of the KID needs
SAMPLE_SEED = 3
RESAMPLES = 200


def prior_samples(context: EvalContext, count: int) -> Tensor:
    """Decodes samples from the prior: images (count, C, H, W) in [−1, 1]."""
    drawn = normal(torch.arange(count), sum(context.sizes), Stream.PRIOR, SAMPLE_SEED)
    return decode_to_measure(context, split_layers(drawn, context.sizes))


def pixel_features(images: Tensor) -> Tensor:
    """Images (n, C, H, W) in [−1, 1] as rows of at most C × SIDE × SIDE values."""
    small = F.adaptive_avg_pool2d(images, SIDE) if images.shape[-1] > SIDE else images
    return small.flatten(1)


def stored_features(images: np.ndarray) -> Tensor:
    """``pixel_features`` of uint8 (n, H, W, C)."""
    return torch.cat([pixel_features(chunk) for chunk in in_chunks(images)])


def nearest_distances(queries: Tensor, train: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Root mean square distance of each row of (q, k) to the nearest of (n, k), and which it is: (q,), (q,)."""
    closest = squared_distances(queries, train).min(dim=1)
    return (closest.values / train.shape[1]).sqrt().numpy(), closest.indices.numpy()


def distance_ratio(samples: Tensor, held_out: Tensor, train: Tensor) -> tuple[float, list[float]]:
    """Median distance of samples to their nearest of ``train``, over that of held-out images; all rows of features.

    Well below 1 means copies. The 95 % interval is by bootstrap: a median has no influence values.
    """
    near, real = (np.maximum(nearest_distances(rows, train)[0], 1e-12) for rows in (samples, held_out))  # equal images
    rng = np.random.default_rng(0)
    medians = [np.median(rng.choice(rows, (RESAMPLES, len(rows))), axis=1) for rows in (near, real)]
    ends = np.percentile(medians[0] / medians[1], [2.5, 97.5])
    return float(np.median(near) / np.median(real)), [float(end) for end in ends]


def generalization_gap(train: np.ndarray, held_out: np.ndarray) -> tuple[float, list[float]]:
    """mean(held-out) / mean(train) − 1 of errors (n,), (m,), with its 95 % interval."""
    ratio = float(held_out.mean() / train.mean())
    shares = [(errors / errors.mean() - 1) / np.sqrt(len(errors)) for errors in (held_out, train)]
    deviation = ratio * float(np.hypot(*(share.std() for share in shares)))
    return ratio - 1, [ratio - 1 - QUANTILE * deviation, ratio - 1 + QUANTILE * deviation]


def kid(x: Tensor, y: Tensor) -> tuple[float, list[float]]:
    """Unbiased squared MMD of features (n, k), (m, k) under (x·y / k + 1)³ (KID, Binkowski et al. 2018), and interval.

    The value is the mean over disjoint blocks, as in the paper, ten or more where each can hold two, and the interval
    is of that mean. 0 = the same distribution.
    """
    block = min(100, max(2, min(len(x), len(y)) // 10))

    def estimate(a: Tensor, b: Tensor) -> float:
        def kernel(p: Tensor, q: Tensor) -> Tensor:
            return (p @ q.T / p.shape[1] + 1) ** 3

        within = sum((k.sum() - k.trace()) / (block * (block - 1)) for k in (kernel(a, a), kernel(b, b)))
        return float(within - 2 * kernel(a, b).mean())

    scale = y.std(0).clamp(min=1e-6)  # features of real images have unit variance, so that no unit outweighs the rest
    x, y = ((t - y.mean(0)) / scale for t in (x.double(), y.double()))
    blocks = range(0, min(len(x), len(y)) - block + 1, block)
    found = mean(np.array([estimate(x[i : i + block], y[i : i + block]) for i in blocks]))
    return found.value, found.interval()


@torch.inference_mode()
def memorization_metrics(
    context: EvalContext,
    train: np.ndarray,
    held_out: np.ndarray,
    classifier: AttributeClassifier | None,
    progress: Progress,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measures how near samples are to training images, and how similar to real ones.

    Args:
        context: the model.
        train: uint8 images (n, H, W, C).
        held_out: the same of held-out images.
        classifier: its last hidden layer gives features; None = pixels alone.
        progress: told what is being done.

    Returns:
        Fields of ``memorization`` and of ``sample_quality``. ``nearest_train_ratio`` is measured on pixels,
        ``nearest_train_ratio_features`` and ``kid_classifier_features`` on the classifier's features, if any.
    """
    advance = progress("samples beside training images", 3)
    samples, real = prior_samples(context, QUERIES), held_out[:QUERIES]
    advance(1)
    memory = _ratio("", pixel_features(samples), *map(stored_features, (real, train)))
    memory |= {"n_samples": len(samples), "n_held_out": len(real), "n_train": len(train)}
    advance(1)
    quality: dict[str, Any] = {}
    if classifier is not None and min(len(samples), len(real), len(train)) >= MIN_FEATURES:
        f_samples, f_real, f_train = map(classifier.features, (samples, real, train))
        memory |= _ratio("_features", f_samples, f_real, f_train)
        distance, distance_interval = kid(f_samples, f_real)
        quality = {
            "kid_classifier_features": distance,
            "kid_classifier_features_interval": distance_interval,
            "kid_of_training_images": kid(f_train[: len(f_real)], f_real)[0],
            "n": len(samples),
        }
    advance(1)
    return memory, quality


def _ratio(suffix: str, samples: Tensor, held_out: Tensor, train: Tensor) -> dict[str, Any]:
    value, ends = distance_ratio(samples, held_out, train)
    return {f"nearest_train_ratio{suffix}": value, f"nearest_train_ratio{suffix}_interval": ends}
