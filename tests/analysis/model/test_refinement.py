"""Refined codes are nearer to the image than the encoder's, one by one, and independent of the rest of the batch."""

from __future__ import annotations

import torch

import analysis
from analysis.model.refinement import Refiner
from pipeline.config.schema import ObjectiveConfig


def _refiner(model: analysis.LadderModel) -> Refiner:
    return Refiner(model.vlae, model.config.objective)


def test_refined_codes_reconstruct_photographs_better() -> None:
    model = analysis.load("photos64", "cpu")
    images = torch.from_numpy(model.faces[:4]).permute(0, 3, 1, 2).float() / 127.5 - 1
    encoded, refined = (torch.cat(model.encode(images, refine=steps), 1) for steps in (0, 8))
    loss = _refiner(model).negative_log_joint
    assert (loss(images, refined) < 0.95 * loss(images, encoded)).all()
    alone = model.encode(images[:1])
    assert torch.allclose(torch.cat(alone, 1), refined[:1], atol=1e-4)


def test_refinement_never_returns_a_worse_code() -> None:
    """On noise, which no code draws, the steps may overshoot."""
    model = analysis.load("photos64", "cpu")
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    loss = _refiner(model).negative_log_joint
    for steps in (1, 3):
        refined, encoded = (torch.cat(model.encode(images, refine=count), 1) for count in (steps, 0))
        assert (loss(images, refined) <= loss(images, encoded)).all()


def test_the_joint_density_and_the_curvature_are_those_of_the_squared_error_without_weights() -> None:
    model = analysis.load("photos64", "cpu")
    plain = Refiner(model.vlae, ObjectiveConfig(reconstruction="l1"))
    images, z = torch.zeros(2, 3, 64, 64), torch.cat(model.prior(2), 1)
    error = (model.decode(model.prior(2), output="torch") - images).square().flatten(1).sum(1)
    assert torch.allclose(plain.negative_log_joint(images, z), (error / 0.0144 + z.square().sum(1)) / 2, rtol=1e-4)
    inverse = plain.inverse_curvature
    assert torch.allclose(inverse, inverse.T, atol=1e-6)
    assert 0 < torch.linalg.eigvalsh(inverse)[0] < torch.linalg.eigvalsh(inverse)[-1] <= 1.0001


def test_a_face_window_makes_the_face_better_at_the_expense_of_the_rest() -> None:
    model = analysis.load("photos64", "cpu")
    images = torch.from_numpy(model.faces[:4]).permute(0, 3, 1, 2).float() / 127.5 - 1
    codes = model.encode(images, refine=0)

    def errors(weight: float) -> tuple[float, float]:
        refined = Refiner(model.vlae, ObjectiveConfig(face_weight=weight))(images, codes, 8)
        error = (model.decode(refined, output="torch") - images).square().mean((0, 1))
        return float(error[28:56, 20:44].mean()), float(error[:16].mean())

    (face, border), (weighted_face, weighted_border) = errors(1), errors(10)
    assert weighted_face < face
    assert weighted_border > border
