"""The reconstruction terms on images of any size."""

import pytest
import torch
from torch.nn import functional as F

from pipeline.config.load import parse_overrides, resolve
from pipeline.config.schema import ConfigError, ObjectiveConfig
from pipeline.losses.reconstruction import ReconstructionLoss, face_window, mean_error


def loss_of(shape: tuple[int, int], **settings) -> ReconstructionLoss:
    return ReconstructionLoss(ObjectiveConfig(**settings), (3, *shape))


def bands_alone(shape: tuple[int, int], images, other, kind="l1", weights=()):
    """The loss with bands less the loss without."""
    banded = loss_of(shape, laplacian_weight=1, reconstruction=kind, laplacian_band_weights=weights)
    return banded(images, other)[0] - loss_of(shape, reconstruction=kind)(images, other)[0]


@pytest.mark.parametrize("size", [(64, 64), (33, 33), (48, 30), (7, 7), (28, 28)])
def test_bands_count_fine_changes_for_images_of_any_size(size):
    images = torch.rand(2, 3, *size)
    assert loss_of(size, laplacian_weight=1)(images, images)[0] == 0
    checks = (torch.arange(size[0])[:, None] + torch.arange(size[1])) % 2 * 0.2
    flat = torch.full_like(checks, 0.1)
    fine, even = (bands_alone(size, images + change, images) for change in (checks, flat))
    if min(size) >= 8:  # smaller images have no bands
        assert fine > 10 * even.clamp(min=1e-6)


@pytest.mark.parametrize("kind", ["l1", "l2"])
@pytest.mark.parametrize(("size", "face_weight"), [((32, 32), 1), ((16, 24), 3), ((33, 9), 1)])
def test_bands_and_their_gradient_equal_those_of_pooling_and_interpolation(kind, size, face_weight):
    torch.manual_seed(0)
    loss = loss_of(size, reconstruction=kind, laplacian_weight=2, face_weight=face_weight)
    target = torch.rand(2, 3, *size)
    outputs = [torch.rand(2, 3, *size, generator=torch.manual_seed(1)).requires_grad_() for _ in range(2)]
    found, plain = loss(outputs[0], target)
    difference = outputs[1] - target
    expected = mean_error(outputs[1], target, kind, loss.window0)
    for level, weight in enumerate(loss.band_weights):
        low = F.avg_pool2d(difference, 2)
        band = difference - F.interpolate(low, size=difference.shape[-2:], mode="bilinear", align_corners=False)
        window = getattr(loss, f"window{level}")
        expected = expected + 2 * weight * mean_error(band, torch.zeros_like(band), kind, window)
        difference = low
    (3 * found).backward()
    (3 * expected).backward()
    assert torch.allclose(found, expected, rtol=1e-5)
    assert torch.equal(plain, mean_error(outputs[0].detach(), target, kind)), "the logged error has no weights"
    assert torch.allclose(outputs[0].grad, outputs[1].grad, atol=1e-5 * float(outputs[1].grad.abs().max()))


def test_bands_are_weighed_one_by_one():
    size = (32, 32)
    images, other = torch.rand(2, 3, *size), torch.rand(2, 3, *size)
    each = [bands_alone(size, images, other, "l2", (0.0,) * k + (1.0,)) for k in range(3)]
    assert torch.allclose(torch.stack(each).mean(), bands_alone(size, images, other, "l2"))
    weighted = bands_alone(size, images, other, "l2", (3, 0.5))
    assert torch.allclose(weighted, 3 * each[0] + 0.5 * each[1])
    assert each[0] > each[2], "noise is fine"


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_face_weight_moves_the_weight_to_the_face_and_keeps_its_sum(kind):
    black = torch.zeros(1, 3, 64, 64)
    face, corner = black.clone(), black.clone()
    face[..., 36:44, 28:36] = 0.5
    corner[..., :8, :8] = 0.5
    plain, weighted = (loss_of((64, 64), reconstruction=kind, face_weight=weight) for weight in (1, 4))
    assert plain(face, black)[0] == plain(corner, black)[0]
    assert 3 < weighted(face, black)[0] / weighted(corner, black)[0] < 4
    assert torch.allclose(weighted(black + 0.5, black)[0], plain(black + 0.5, black)[0])
    assert face_window(20, 30, 4).mean() == pytest.approx(1)


def test_weights_without_a_band_or_without_effect_are_refused():
    def made(*overrides: str) -> ReconstructionLoss:
        config = resolve("demo", parse_overrides(["objective.laplacian_weight=1", *overrides]))
        return ReconstructionLoss(config.objective, (3, 64, 64))

    assert made("objective.laplacian_band_weights=[4, 3, 2, 1]")
    with pytest.raises(ConfigError, match="64x64 have 4 bands"):
        made("objective.laplacian_band_weights=[5, 4, 3, 2, 1]")
    with pytest.raises(ConfigError, match="has no effect"):
        made("objective.laplacian_band_weights=[4]", "objective.laplacian_weight=0")


@pytest.mark.parametrize("channels", [1, 3])
def test_the_gradient_of_the_bands_can_be_asked_for_twice(channels):
    loss = ReconstructionLoss(ObjectiveConfig(laplacian_weight=1), (channels, 16, 16))
    output = torch.rand(2, channels, 16, 16, requires_grad=True)
    value = 2 * loss(output, torch.zeros_like(output))[0]
    once, again = (torch.autograd.grad(value, output, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(once, again)
