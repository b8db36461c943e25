"""Sheets of images: every image where it belongs, pixel for pixel."""

import base64
import io

import numpy as np
import torch
from PIL import Image

from analysis.figures.tiles import data_uri, enlarged_sheet, labeled_rows
from pipeline.model.pixels import to_rgb
from pipeline.training.previews import contact_sheet


def images(count, size=8):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_a_contact_sheet_has_every_image_white_gaps_and_no_border():
    tiles = images(5)
    sheet = np.asarray(contact_sheet(tiles, 3, gap=2))
    assert sheet.shape == (2 * 8 + 2, 3 * 8 + 2 * 2, 3)
    for number, tile in enumerate(to_rgb(tiles)):
        top, left = 10 * (number // 3), 10 * (number % 3)
        assert (sheet[top : top + 8, left : left + 8] == tile).all()
    assert (sheet[8:10] == 255).all() and (sheet[10:, 20:] == 255).all()


def test_gray_images_and_sheets_without_gaps():
    tiles = images(2)[:, :1]
    sheet = np.asarray(contact_sheet(tiles, 2, gap=0))
    assert sheet.shape == (8, 16, 3) and (sheet[..., 0] == sheet[..., 2]).all()


def test_small_tiles_are_enlarged_pixel_by_pixel():
    assert enlarged_sheet(images(1), 1).size == (64, 64)
    assert enlarged_sheet(images(1, 64), 1).size == (64, 64)


def test_labels_stand_at_the_side_that_was_asked_for():
    rows = [("a long label", torch.full((2, 3, 8, 8), -1.0))]
    left, right = (np.asarray(labeled_rows(rows, ("x", "y"), labels_right=side)) for side in (False, True))
    assert left.shape == right.shape
    assert (right[-50, 10] == 0).all() and (left[-50, -10] == 0).all(), "images at the other side"


def test_an_image_of_nan_leaves_its_cell_white():
    sheet = np.asarray(labeled_rows([("", torch.full((1, 3, 8, 8), float("nan")))]))
    assert (sheet == 255).all()


def test_a_data_uri_holds_the_picture():
    uri = data_uri(Image.new("RGB", (4, 3), "red"))
    assert Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).size == (4, 3)
