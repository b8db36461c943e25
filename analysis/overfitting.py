"""Does the model remember its training images? (an open question of the paper's section 5)"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from analysis.pictures import images_to_tensor
from analysis.subject import Subject, decode
from pipeline.keyed_noise import Stream, normal
from pipeline.latents import split_layers
from pipeline.mmd import squared_distances

SIDE = 32  # pixels a side at which images are compared
QUERIES = 500
RESAMPLES = 200


def _features(images: Tensor) -> Tensor:
    """(n, C, H, W) in [−1, 1] as rows of at most SIDE × SIDE pixels."""
    small = F.adaptive_avg_pool2d(images, SIDE) if images.shape[-1] > SIDE else images
    return small.flatten(1)


def _nearest(queries: Tensor, train: Tensor) -> np.ndarray:
    """Root mean square pixel distance of each query to its nearest training image: (n,)."""
    nearest = squared_distances(queries, train).min(dim=1).values
    return (nearest / train.shape[1]).sqrt().numpy()


@torch.inference_mode()
def nearest_train_ratio(subject: Subject, train: np.ndarray, held_out: np.ndarray) -> dict[str, Any]:
    """How near samples come to training images, against how near held-out images do.

    ``nearest_train_ratio``: median distance of decoded prior samples over that of held-out images, each to its nearest
    of ``train``; well below 1 means copies. Images are uint8 (n, H, W, C).
    """
    reference = _features(images_to_tensor(train))
    drawn = normal(torch.arange(QUERIES), sum(subject.sizes), Stream.PRIOR, 3)
    samples = _nearest(_features(decode(subject, split_layers(drawn, subject.sizes))), reference)
    real = _nearest(_features(images_to_tensor(held_out[:QUERIES])), reference)
    rng = np.random.default_rng(0)
    ratios = [
        np.median(rng.choice(samples, len(samples))) / np.median(rng.choice(real, len(real))) for _ in range(RESAMPLES)
    ]
    return {
        "nearest_train_ratio": float(np.median(samples) / np.median(real)),
        "nearest_train_ratio_interval": [float(v) for v in np.percentile(ratios, [2.5, 97.5])],
        "n_samples": len(samples),
        "n_held_out": len(real),
        "n_train": len(train),
    }
