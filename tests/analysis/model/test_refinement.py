"""Refined codes are nearer to the image than the encoder's, one by one, and independent of the rest of the batch."""

from __future__ import annotations

import torch

import analysis
from analysis.model.refinement import NOISE_VARIANCE


def _loss(model: analysis.LadderModel, images: torch.Tensor, codes: list[torch.Tensor]) -> torch.Tensor:
    error = (model.decode(codes, output="torch") - images).square().flatten(1).sum(1)
    return (error / NOISE_VARIANCE + torch.cat(codes, 1).square().sum(1)) / 2


def test_refined_codes_reconstruct_photographs_better() -> None:
    model = analysis.load("photos64", "cpu")
    images = torch.from_numpy(model.faces[:4]).permute(0, 3, 1, 2).float() / 127.5 - 1
    encoded, refined = model.encode(images, refine=0), model.encode(images)
    assert (_loss(model, images, refined) < 0.95 * _loss(model, images, encoded)).all()
    alone = model.encode(images[:1])
    assert torch.allclose(torch.cat(alone, 1), torch.cat(refined, 1)[:1], atol=1e-4)


def test_refinement_never_returns_a_worse_code() -> None:
    """On noise, which no code draws, the steps may overshoot."""
    model = analysis.load("photos64", "cpu")
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for steps in (1, 3):
        refined, encoded = model.encode(images, refine=steps), model.encode(images, refine=0)
        assert (_loss(model, images, refined) <= _loss(model, images, encoded)).all()
