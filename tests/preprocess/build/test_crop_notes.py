"""Crops of images that show CelebA's frame in another size: presets are scaled, pixels are explained."""

from __future__ import annotations

from pathlib import Path

from preprocess.shards.manifest import Manifest
from tests.preprocess.trees import jpeg, shard, write_lists


def test_preset_and_crop_of_half_size_images(tmp_path: Path) -> None:
    images = tmp_path / "tree" / "img_align_celeba"
    images.mkdir(parents=True)
    for number in range(1, 5):
        (images / f"{number:06d}.jpg").write_bytes(jpeg(number, 89, 109))
    write_lists(tmp_path / "tree", 4)
    done = shard(tmp_path / "tree", tmp_path / "preset", "--preset", "nvae")
    assert "--preset nvae is box (8, 20, 82, 94) for images of 89 x 109" in done.stderr
    assert "center crop of 74" not in done.stderr  # the crop that is not used
    assert Manifest.read(tmp_path / "preset").crop.box == (8, 20, 82, 94)
    done = shard(tmp_path / "tree", tmp_path / "crop", "--crop", 148)
    assert done.exit_code == 1
    assert "--crop counts pixels of the images, 89 x 109" in done.stderr
    assert "smaller than the crop of 148 x 148" in done.stderr
