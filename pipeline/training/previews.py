"""Pictures made during training: reconstructions and one manifold per layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pipeline.data.batch import IndexedLoader
from pipeline.model.latents import manifold_codes
from pipeline.model.pixels import to_float
from pipeline.model.vlae import VLAE
from pipeline.training.pictures import contact_sheet, save_png

RECONSTRUCTIONS = 24
SIDE = 8  # cells of a manifold's side


@torch.no_grad()
def draw_previews(vlae: VLAE, feed: IndexedLoader, folder: Path, seed: int) -> None:
    """Writes reconstructions.png (image above its reconstruction) and manifold_layer{l}.png into ``folder``."""
    images = to_float(feed.load(np.arange(min(RECONSTRUCTIONS, feed.samples))).images)
    output = vlae.decode([q.mean for q in vlae.encode(images)])
    columns = min(8, len(images))
    rows = [
        pair
        for start in range(0, len(images), columns)
        for pair in (images, output)
        for pair in [pair[start : start + columns]]
    ]
    save_png(contact_sheet(torch.cat(rows), columns), folder / "reconstructions.png")
    for layer in range(len(vlae.latent_sizes)):
        codes = [z.to(feed.device) for z in manifold_codes(layer, vlae.latent_sizes, SIDE, seed)]
        save_png(contact_sheet(vlae.decode(codes), SIDE), folder / f"manifold_layer{layer}.png")
