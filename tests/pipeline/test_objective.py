"""The reconstruction terms on images of any size."""

import pytest
import torch

from pipeline.objective import detail_error


@pytest.mark.parametrize("size", [(64, 64), (33, 33), (48, 30), (7, 7), (28, 28)])
def test_details_are_measured_on_any_size(size):
    images = torch.rand(2, 3, *size)
    assert detail_error(images, images, "l1") == 0
    checks = (torch.arange(size[0])[:, None] + torch.arange(size[1])) % 2 * 0.2
    flat = torch.full_like(checks, 0.1)
    fine, even = (detail_error(images + change, images, "l1") for change in (checks, flat))
    if min(size) >= 8:  # smaller images have no bands
        assert fine > 10 * even.clamp(min=1e-6)
