"""Pictures made during training, and where they are shown."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.config.schema import ModelConfig
from pipeline.data.loader import InMemoryLoader
from pipeline.model.vlae import VLAE
from pipeline.run.trackers import Trackers
from pipeline.training.previews import contact_sheet, draw_previews, save_png

SIZE, GAP = 16, 2


def test_a_contact_sheet_has_white_gaps_and_a_white_rest():
    images = -torch.ones(3, 1, 4, 6)
    sheet = np.asarray(contact_sheet(images, columns=2, gap=1))
    assert sheet.shape == (9, 13, 3)
    assert (sheet[:4, :6] == 0).all()
    assert (sheet[4] == 255).all()
    assert (sheet[:, 6] == 255).all()
    assert (sheet[5:, 7:] == 255).all()


@pytest.mark.parametrize("count", [1, 5])
def test_previews_are_reconstructions_swaps_and_a_manifold_for_each_layer(count):
    torch.manual_seed(0)
    vlae = VLAE(ModelConfig(layers=("8/2", "fc16"), latents=(2, 3)), (3, SIZE, SIZE)).eval()
    images = torch.randint(0, 256, (count, SIZE, SIZE, 3), dtype=torch.uint8)
    pictures = draw_previews(vlae, InMemoryLoader(images), seed=0)
    expected = {"reconstructions", "manifold_layer0", "manifold_layer1"} | ({"swaps"} if count > 1 else set())
    assert set(pictures) == expected
    if count > 1:
        swaps = pictures["swaps"]
        assert swaps.size == (count * (SIZE + GAP) - GAP, 3 * (SIZE + GAP) - GAP), "the others above a row a layer"
        top_left = np.asarray(swaps)[:SIZE, :SIZE]
        assert np.array_equal(top_left, images[0].numpy()), "the face that the layers are put into"


class FakeTracker:
    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def log_images(self, values, step, **options) -> None:
        self.calls.append((values, step, options))


def test_trackers_that_take_pictures_get_each_step_once():
    trackers = {"tensorboard": FakeTracker(), "wandb": FakeTracker(), "mlflow": SimpleNamespace()}
    shown = Trackers(dict(trackers), {"wandb": 10})
    picture = Image.new("RGB", (4, 2), "white")
    shown.log_pictures(10, {"swaps": picture})
    shown.log_pictures(20, {"swaps": picture})
    assert [step for _, step, _ in trackers["tensorboard"].calls] == [10, 20]
    assert [step for _, step, _ in trackers["wandb"].calls] == [20], "step 10 was sent before the run was killed"
    assert trackers["tensorboard"].calls[0][0]["previews/swaps"].shape == (1, 2, 4, 3)


def test_a_png_and_its_folder_are_written(tmp_path):
    save_png(Image.new("RGB", (3, 3)), tmp_path / "a" / "b.png")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.png"]
