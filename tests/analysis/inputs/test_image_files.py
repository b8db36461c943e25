from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from PIL import Image

from analysis.inputs.image_files import prepare_photo, read_photo
from pipeline.model.pretrained_schema import ImageProcessing
from preprocess.errors import UsageError, UserError
from preprocess.images.align import is_installed
from preprocess.images.crop_resize import Crop, resize_batch
from tests.photographs import ground, photographs, placed

needs_aligner = pytest.mark.skipif(not is_installed(), reason="needs the extra align")
CELEBA = ImageProcessing(
    crop=Crop(kind="center", size=148), resample="bilinear", image_shape=(64, 64, 3), source_size=(218, 178)
)


def as_trained(photo: np.ndarray) -> np.ndarray:
    """A photograph at CelebA's 178x218, its center 148 at 64x64."""
    whole = np.asarray(Image.fromarray(photo).resize((178, 218), Image.Resampling.BICUBIC))
    return resize_batch(np.ascontiguousarray(whole[None, 35:183, 15:163]), 64, 64)[0]


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b).mean())


@pytest.mark.parametrize("alignment", ["off", pytest.param("auto", marks=needs_aligner)])
@pytest.mark.parametrize("factor", [1, 2, 20])
def test_crop_scales_with_the_picture(factor, alignment):
    photo = photographs(1)[0]
    size = (photo.shape[1] * factor, photo.shape[0] * factor)
    picture = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BICUBIC))
    prepared = prepare_photo(picture, CELEBA, alignment)
    assert prepared.aligned.shape == (74 * factor, 74 * factor, 3)
    assert difference(prepared.pixels, as_trained(photo)) < (8 if factor == 1 else 2)  # 89x109 has no exact center 74
    assert not prepared.notes


@needs_aligner
def test_face_anywhere_comes_out_as_trained():
    photo = photographs(1)[0]
    picture, _ = placed(photo, 4, 25, (800, 500), ground(1000, 1300))
    prepared = prepare_photo(picture, CELEBA)
    middle = np.s_[8:60, 12:52]
    assert difference(prepared.pixels[middle], as_trained(photo)[middle]) < 12
    assert prepared.aligned.shape == (148, 148, 3)
    assert difference(prepare_photo(picture, CELEBA, "off").pixels[middle], as_trained(photo)[middle]) > 20


@needs_aligner
def test_composition_decides_and_not_the_size():
    """A picture of CelebA's aspect ratio with the face elsewhere is aligned, too."""
    photo = photographs(1)[0]
    picture, _ = placed(photo, 2, 0, (120, 300), ground(436, 356))
    middle = np.s_[8:60, 12:52]
    assert difference(prepare_photo(picture, CELEBA).pixels[middle], as_trained(photo)[middle]) < 12


@needs_aligner
def test_largest_of_several_faces_is_taken_and_said():
    first, second = photographs(2)
    picture, _ = placed(second, 4, 0, (620, 300), placed(first, 1.5, 0, (150, 150), ground(600, 900))[0])
    prepared = prepare_photo(picture, CELEBA, name="party.jpg")
    assert prepared.notes == ("party.jpg: 2 faces were found; the largest was taken",)
    middle = np.s_[8:60, 12:52]
    assert difference(prepared.pixels[middle], as_trained(second)[middle]) < 12


@needs_aligner
def test_no_face():
    with pytest.raises(UserError, match=r"hill.jpg: no face was found; --align off"):
        prepare_photo(ground(400, 700), CELEBA, name="hill.jpg")
    with pytest.raises(UserError, match="no face"):
        prepare_photo(ground(436, 356), CELEBA, "on")
    drawn = prepare_photo(ground(436, 356), CELEBA, name="drawn.png")  # a drawing in the training images' format
    assert drawn.pixels.shape == (64, 64, 3)
    assert "drawn.png: no face was found" in drawn.notes[0]


def test_without_the_library(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'mmd-vlae\[align\]'"):
        prepare_photo(ground(400, 700), CELEBA, "on")
    prepared = prepare_photo(ground(400, 700), CELEBA, name="hill.jpg")
    assert "pip install 'mmd-vlae[align]'" in prepared.notes[0]
    assert prepare_photo(ground(436, 356), CELEBA).notes == ()  # the training images' aspect ratio


def test_picture_of_the_models_size_is_taken_as_it_is():
    picture = ground(64, 64)
    assert (prepare_photo(picture, CELEBA).pixels == picture).all()


def test_gray_model_of_square_images_never_aligns():
    processing = ImageProcessing(
        crop=Crop(kind="none"), resample="bilinear", image_shape=(28, 28, 1), source_size=(28, 28)
    )
    prepared = prepare_photo(ground(100, 100), processing)
    assert prepared.pixels.shape == (28, 28, 1)
    with pytest.raises(UsageError, match="--align off"):
        prepare_photo(ground(100, 100), processing, "on")


def test_older_checkpoint_without_a_source_size_is_celebas():
    photo = photographs(1)[0]
    picture = np.asarray(Image.fromarray(photo).resize((890, 1090), Image.Resampling.BICUBIC))
    older = CELEBA.model_copy(update={"source_size": None})
    assert prepare_photo(picture, older, "off").aligned.shape == (740, 740, 3)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_files_of_any_mode_are_read_upright(tmp_path, mode):
    picture = Image.fromarray(ground(60, 90)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned by a quarter
    picture.save(tmp_path / "a.png", exif=exif)
    assert read_photo(tmp_path / "a.png").shape == (90, 60, 3)


def test_file_that_is_not_an_image(tmp_path):
    path = tmp_path / "a.jpg"
    with pytest.raises(UserError, match=r"a\.jpg"):
        read_photo(path)
    path.write_text("hello")
    with pytest.raises(UserError, match=r"a\.jpg is not a readable image"):
        read_photo(path)
