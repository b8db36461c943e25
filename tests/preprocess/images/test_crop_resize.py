"""Crops in pixels, the same crops in images of other sizes, and the resize."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import v2

from preprocess.errors import UnreadableImage, UsageError
from preprocess.images.crop_resize import PRESETS, Crop, choose_crop, crop_box, parse_crop, resize_batch, scaled_crop
from tests.preprocess.trees import smooth_picture

CELEBA = (218, 178)


@pytest.mark.parametrize("side", [147, 148, 108])
def test_center_crop_and_resize_equal_torchvision(side: int) -> None:
    picture = smooth_picture(1)
    top, left, height, width = crop_box(Crop(kind="center", size=side), *picture.shape[:2])
    ours = resize_batch(np.ascontiguousarray(picture[None, top : top + height, left : left + width]), 64, 64)
    image = torch.from_numpy(picture.copy()).permute(2, 0, 1)
    theirs = v2.Compose([v2.CenterCrop(side), v2.Resize((64, 64), antialias=True)])(image)
    assert np.array_equal(ours[0], theirs.permute(1, 2, 0).numpy())


def test_a_crop_larger_than_the_image_is_refused() -> None:
    for crop in (Crop(kind="center", size=150), Crop(kind="box", box=(0, 0, 90, 110))):
        with pytest.raises(UnreadableImage, match="89 x 109 is smaller than the crop"):
            crop_box(crop, 109, 89)


@pytest.mark.parametrize(
    ("crop", "size", "expected"),
    [
        (Crop(kind="center", size=148), (109, 89), Crop(kind="center", size=74)),
        (Crop(kind="center", size=148), (2180, 1780), Crop(kind="center", size=1480)),
        (Crop(kind="center", size=148), CELEBA, Crop(kind="center", size=148)),
        (Crop(kind="box", box=(15, 40, 163, 188)), (436, 356), Crop(kind="box", box=(30, 80, 326, 376))),
        (Crop(kind="square"), (436, 356), Crop(kind="square")),
        (Crop(kind="none"), (10, 10), Crop(kind="none")),
    ],
)
def test_a_crop_scales_with_the_image(crop: Crop, size: tuple[int, int], expected: Crop) -> None:
    assert scaled_crop(crop, CELEBA, size) == expected


@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    crop=st.sampled_from([Crop(kind="center", size=148), *PRESETS.values()]),
)
def test_a_scaled_crop_fits_into_every_image(height: int, width: int, crop: Crop) -> None:
    top, left, h, w = crop_box(scaled_crop(crop, CELEBA, (height, width)), height, width)
    assert h >= 1 and w >= 1
    assert 0 <= top <= height - h and 0 <= left <= width - w
    assert abs(h - w) <= 1, "a square crop stays square"


def test_the_crop_of_the_command_line() -> None:
    assert choose_crop(None, None, CELEBA) is None
    assert choose_crop("120", None, (109, 89)) == Crop(kind="center", size=120)
    assert choose_crop(None, "nvae", None) == Crop(kind="box", box=(15, 40, 163, 188))
    assert str(parse_crop("1,2,30,40")) == "box (1, 2, 30, 40)"
    with pytest.raises(UsageError, match="cannot both be given"):
        choose_crop("148", "nvae", None)
    for text in ("0", "-3", "1,2,3", "5,5,5,9", "half", ""):
        with pytest.raises(UsageError, match="--crop"):
            parse_crop(text)


def test_a_preset_is_scaled_with_the_frame() -> None:
    assert choose_crop(None, "vae148", (109, 89)) == Crop(kind="center", size=74)
    assert choose_crop(None, "nvae", (436, 356)) == Crop(kind="box", box=(30, 80, 326, 376))
    with pytest.raises(UsageError, match=r"--preset vae148 .* the images have 1024 x 1024"):
        choose_crop(None, "vae148", (1024, 1024))
