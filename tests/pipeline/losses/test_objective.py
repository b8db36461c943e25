"""The reconstruction terms on images of any size."""

import pytest
import torch

from pipeline.config.load import parse_overrides, resolve
from pipeline.config.schema import ConfigError
from pipeline.losses.objective import Objective, laplacian_loss
from pipeline.model.vlae import VLAE
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("size", [(64, 64), (33, 33), (48, 30), (7, 7), (28, 28)])
def test_laplacian_loss_works_for_any_image_size(size):
    images = torch.rand(2, 3, *size)
    assert laplacian_loss(images, images, "l1") == 0
    checks = (torch.arange(size[0])[:, None] + torch.arange(size[1])) % 2 * 0.2
    flat = torch.full_like(checks, 0.1)
    fine, even = (laplacian_loss(images + change, images, "l1") for change in (checks, flat))
    if min(size) >= 8:  # smaller images have no bands
        assert fine > 10 * even.clamp(min=1e-6)


def test_bands_are_weighed_one_by_one():
    images = torch.rand(2, 3, 32, 32)
    other = torch.rand(2, 3, 32, 32)
    each = [laplacian_loss(images, other, "l2", [0.0] * k + [1.0]) for k in range(3)]
    assert torch.allclose(torch.stack(each).mean(), laplacian_loss(images, other, "l2"))
    weighted = laplacian_loss(images, other, "l2", [3, 0.5])
    assert torch.allclose(weighted, 3 * each[0] + 0.5 * each[1])
    assert each[0] > each[2], "noise is fine"


def test_weights_without_a_band_or_without_effect_are_refused():
    def made(*overrides: str) -> Objective:
        config = resolve(
            REPOSITORY / "launch/recipes/demo.yaml", parse_overrides(["objective.laplacian_weight=1", *overrides])
        )
        return Objective(VLAE(config.model, (3, 64, 64)), config.objective, 0, 1)

    assert made("objective.laplacian_band_weights=[4, 3, 2, 1]")
    with pytest.raises(ConfigError, match="64x64 have 4 bands"):
        made("objective.laplacian_band_weights=[5, 4, 3, 2, 1]")
    with pytest.raises(ConfigError, match="has no effect"):
        made("objective.laplacian_band_weights=[4]", "objective.laplacian_weight=0")
