"""Conversions between pixels and the model's range."""

import numpy as np
import pytest
import torch

from pipeline.model.pixels import from_array, to_float, to_rgb, to_uint8


def test_every_pixel_value_survives_the_round_trip():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    values = to_float(pixels)
    assert values.dtype == torch.float32
    assert values.min() == -1 and values.max() == pytest.approx(1)
    assert torch.equal(to_uint8(values), pixels)


def test_values_outside_the_range_are_clamped():
    assert to_uint8(torch.tensor([-3.0, -1.0, 0.0, 1.0, 2.0])).tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("channels", [1, 3])
def test_stored_arrays_become_channels_last_input_and_return_as_rgb(channels):
    stored = np.random.default_rng(0).integers(0, 256, (2, 4, 6, channels), dtype=np.uint8)
    images = from_array(stored)
    assert images.shape == (2, channels, 4, 6)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(to_rgb(images), np.broadcast_to(stored, (2, 4, 6, 3)))
