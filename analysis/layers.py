"""How much each layer is used: active units, distance to the prior, effect on the picture."""

from __future__ import annotations

from typing import Any

import torch

from analysis.subject import Encoded, Subject
from pipeline.kernels import make_kernel
from pipeline.keyed_noise import Stream, normal
from pipeline.latents import layer_effects, split_layers
from pipeline.mmd import unbiased_mmd

ACTIVE_VARIANCE = 0.01  # of a unit's mean over images (Burda et al. 2016, section 5.2)
MMD_SAMPLES = 4096
EFFECT_SAMPLES = 512
NOISE_SEED = 1


@torch.inference_mode()
def layer_measures(subject: Subject, encoded: Encoded) -> list[dict[str, Any]]:
    """For each layer, bottom first: ``dim``, ``active_units``, ``mmd`` (unbiased, of posterior samples), ``effect``.

    ``mean_std`` is the mean posterior deviation; a unit near 1 says nothing of its image.
    """
    rows = torch.arange(min(len(encoded), MMD_SAMPLES))
    total = sum(subject.sizes)
    noise = split_layers(normal(rows, total, Stream.POSTERIOR, NOISE_SEED), subject.sizes)
    prior = split_layers(normal(rows, total, Stream.PRIOR, NOISE_SEED), subject.sizes)
    codes = [
        mean[: len(rows)] + std[: len(rows)] * eps
        for mean, std, eps in zip(encoded.means, encoded.stds, noise, strict=True)
    ]
    few = slice(0, EFFECT_SAMPLES)
    effects = layer_effects(
        subject.vlae, [z[few].to(subject.device) for z in codes], [p[few].to(subject.device) for p in prior]
    )
    return [
        {
            "dim": dim,
            "active_units": int((encoded.means[layer].var(0) > ACTIVE_VARIANCE).sum()),
            "mean_std": float(encoded.stds[layer].mean()),
            "mmd": float(unbiased_mmd(codes[layer], prior[layer], make_kernel(subject.config.objective.kernel, dim))),
            "effect": float(effects[layer]),
            "n": len(rows),
        }
        for layer, dim in enumerate(subject.sizes)
    ]
