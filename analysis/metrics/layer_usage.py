"""How much each layer is used: active units, moments, distance to the prior, effect on the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.inputs.context import EvalContext, Progress
from analysis.inputs.encode import Encoded, decode_to_measure
from analysis.probes.scores import Estimate, ratio
from pipeline.data.counter_rng import Stream, normal
from pipeline.losses.kernels import make_kernel
from pipeline.losses.mmd import unbiased_mmd
from pipeline.model.latents import replace_layer, split_layers

ACTIVE_VARIANCE = 0.01  # of a unit's mean over images (Burda et al. 2016, section 5.2)
MMD_SAMPLES = 4096
EFFECT_SAMPLES = 384
NOISE_SEED = 1


def moments(samples: Tensor) -> dict[str, float]:
    """How far samples (n, d) are from N(0, I) by their moments; all are 0 for the prior, up to sampling error.

    ``mean``: root mean square over units of the mean; ``std``: mean over units of the standard deviation, minus 1;
    ``skewness``, ``excess_kurtosis``: root mean squares over units; ``correlation``: largest |correlation| of two.
    """
    z = samples.double()
    centered = z - z.mean(0)
    std = centered.pow(2).mean(0).sqrt().clamp(min=1e-12)
    unit = centered / std
    correlation = (unit.T @ unit / len(z)).abs().fill_diagonal_(0)
    return {
        "mean": float(z.mean(0).pow(2).mean().sqrt()),
        "std": float(std.mean() - 1),
        "skewness": float(unit.pow(3).mean(0).pow(2).mean().sqrt()),
        "excess_kurtosis": float((unit.pow(4).mean(0) - 3).pow(2).mean().sqrt()),
        "correlation": float(correlation.max()),
    }


def posterior_and_prior(encoded: Encoded, most: int) -> tuple[list[Tensor], list[Tensor]]:
    """Samples of the posteriors of the first ``most`` images, and as many of the prior: (n, d_l) a layer, each."""
    sizes, indices = [z.shape[1] for z in encoded.means], torch.arange(min(len(encoded), most))
    noise, prior = (
        split_layers(normal(indices, sum(sizes), stream, NOISE_SEED), sizes)
        for stream in (Stream.POSTERIOR, Stream.PRIOR)
    )
    parts = zip(encoded.means, encoded.stds, noise, strict=True)
    return [mean[: len(eps)] + std[: len(eps)] * eps for mean, std, eps in parts], prior


def effects(context: EvalContext, encoded: Encoded) -> list[Estimate]:
    """Each layer's effect on the picture, as in ``pipeline.model.latents.layer_effects``, over images."""
    codes, prior = posterior_and_prior(encoded, EFFECT_SAMPLES)
    base = decode_to_measure(context, codes)

    def change(replaced: Sequence[Tensor]) -> np.ndarray:
        return (decode_to_measure(context, replaced) - base).abs().mean((1, 2, 3)).numpy().astype(float)

    together = change(prior)
    return [ratio(change(replace_layer(codes, prior, layer)), together) for layer in range(len(codes))]


@torch.inference_mode()
def layer_measures(context: EvalContext, encoded: Encoded, progress: Progress) -> list[dict[str, Any]]:
    """For each layer, bottom first: ``dim``, ``active_units``, ``mmd`` (unbiased, of posterior samples), ``effect``.

    ``mean_std`` is the mean posterior standard deviation; a unit near 1 holds no information about its image.
    ``moments`` are those of posterior samples; ``n`` images, of which the effect takes the first ``n_effect``.
    """
    advance = progress("effect and prior of each layer", len(context.sizes) + 1)
    found = effects(context, encoded)
    advance(1)
    codes, prior = posterior_and_prior(encoded, MMD_SAMPLES)
    measured = []
    for layer, (dim, effect) in enumerate(zip(context.sizes, found, strict=True)):
        kernel = make_kernel(context.config.objective.kernel, dim)
        measured.append(
            {
                "dim": dim,
                "active_units": int((encoded.means[layer].var(0) > ACTIVE_VARIANCE).sum()),
                "mean_std": float(encoded.stds[layer].mean()),
                "mmd": float(unbiased_mmd(codes[layer], prior[layer], kernel)),
                "moments": moments(codes[layer]),
                **effect.entry("effect"),
                "n": len(codes[layer]),
                "n_effect": len(effect.influence),
            }
        )
        advance(1)
    return measured
