"""Arguments of a training step: augmented images that depend on sample and epoch alone."""

import numpy as np
import pytest
import torch

from pipeline.config.schema import Config, DataConfig
from pipeline.data.augment import prepare_batch, warp
from pipeline.data.batch import Batch
from pipeline.model.pixels import to_float

SIZE = 40
PLACES = torch.arange(SIZE) - (SIZE - 1) / 2


def blobs(count: int) -> torch.Tensor:
    """A round blob 12 pixels wide in the middle of each image: (count, 1, SIZE, SIZE)."""
    blob = torch.exp(-(PLACES[:, None] ** 2 + PLACES[None, :] ** 2) / 18)
    return blob.expand(count, 1, SIZE, SIZE).clone()


def moments(images: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres of mass across and down, in pixels from the middle, and the widths across: (n,) each."""
    mass = images.sum((1, 2, 3))
    across = (images * PLACES[None, None, None, :]).sum((1, 2, 3)) / mass
    down = (images * PLACES[None, None, :, None]).sum((1, 2, 3)) / mass
    spread = ((images * PLACES[None, None, None, :] ** 2).sum((1, 2, 3)) / mass - across**2).sqrt()
    return across.numpy(), down.numpy(), spread.numpy()


def test_shift_translates_by_its_std_in_pixels():
    rows = torch.arange(3000)
    across, down, width = moments(warp(blobs(3000), rows, DataConfig(shift=2), 0, 0))
    assert across.std() == pytest.approx(2, rel=0.05) and down.std() == pytest.approx(2, rel=0.05)
    assert abs(across.mean()) < 0.15 and abs(np.corrcoef(across, down)[0, 1]) < 0.07
    assert width.std() < 0.02


def test_affine_map_stretches_by_its_std_about_the_center():
    rows = torch.arange(3000)
    across, down, width = moments(warp(blobs(3000), rows, DataConfig(affine=0.1), 0, 0))
    assert max(abs(across).max(), abs(down).max()) < 0.05
    # a blob under the map x' = a x + b y is 1/a wide across, to first order
    assert (width / moments(blobs(1))[2]).std() == pytest.approx(0.1, rel=0.15)


def test_warp_depends_on_sample_and_epoch_and_not_on_the_batch():
    config = DataConfig(shift=1, affine=0.1)
    images, rows = torch.rand(6, 3, 16, 16), torch.tensor([5, 9, 2, 70, 1, 3])
    whole = warp(images, rows, config, 7, 2)
    assert torch.equal(warp(images[3:5], rows[3:5], config, 7, 2), whole[3:5])
    assert not torch.equal(warp(images, rows, config, 7, 3), whole)
    assert not torch.equal(warp(images, rows, config, 8, 2), whole)


def test_target_is_the_warped_image():
    batch = Batch(torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8), torch.arange(4))
    config = Config.model_validate({"data": {"shift": 2}, "training": {"global_batch_size": 4}})
    given = prepare_batch(batch, config, 5, 0, 0, 0)
    assert torch.equal(given.target, warp(to_float(batch.images), batch.indices, config.data, config.seed, 0))
    assert torch.equal(given.inputs, given.target), "without denoising"
    plain = prepare_batch(batch, Config.model_validate({"training": {"global_batch_size": 4}}), 5, 0, 0, 0)
    assert torch.equal(plain.target, to_float(batch.images))
