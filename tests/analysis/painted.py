"""A ladder whose every answer is known: two layers of one number, each the brightness of one half of the picture."""

from pathlib import Path

import numpy as np
import torch

from analysis.inputs.context import EvalContext
from analysis.inputs.encode import Encoded
from pipeline.config.schema import Config
from pipeline.model.pixels import from_array, to_rgb
from pipeline.model.vlae import Posterior
from preprocess.shards.reader import Annotations

NAMES = ("Left", "Right")


class Painter(torch.nn.Module):
    """z_0 paints the left half, z_1 the right one: brightness tanh(z)."""

    latent_sizes = (1, 1)

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1), requires_grad=False)  # tells the device of the model

    def encode(self, images):
        halves = images.clamp(-0.999, 0.999).atanh().mean((1, 2)).split(8, dim=1)
        return [Posterior(half.mean(1, keepdim=True), torch.full((len(images), 1), 1e-3)) for half in halves]

    def decode(self, codes, fade=None):
        halves = [z.tanh().view(-1, 1, 1, 1).expand(-1, 3, 16, 8) for z in codes]
        return torch.cat(halves, dim=3)


def painted(count, seed):
    """(context, encoded): images of halves that are dark or bright, annotated Left and Right where bright."""
    rng = np.random.default_rng(seed)
    bright = rng.integers(0, 2, (count, 2))
    z = torch.from_numpy(bright * 2.0 - 1 + rng.normal(0, 0.05, (count, 2))).float()
    context = EvalContext(Path("ckpt.pt"), Painter(), Config(), {}, None, torch.device("cpu"))
    codes = [z[:, :1], z[:, 1:]]
    pixels = to_rgb(context.vlae.decode(codes))
    notes = Annotations(
        [str(i) for i in range(count)],
        bright.astype(np.int8),
        np.zeros((count, 0), np.float32),
        np.full(count, -1),
        np.full(count, -1),
    )
    means = [q.mean for q in context.vlae.encode(from_array(pixels, context.device))]
    return context, Encoded(pixels, notes, means, [torch.full_like(m, 1e-3) for m in means])
