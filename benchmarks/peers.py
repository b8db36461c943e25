"""Our ladder beside pythae's InfoVAE-MMD and VAE: the same photographs, the same minutes, the same cores.

python benchmarks/peers.py runs/photos/ckpt.pt --data shards/ --minutes 30

Ours comes from a finished checkpoint; give the minutes that it took. Each peer is trained by its own library, with its
own CelebA networks, for the same minutes and as many latents, and the columns are measured in the same way for all:
PSNR and L1 of held-out images, linear R² of the factors, distance of samples to held-out images (KID on 8x8 averages).
With --pairs FOLDER the reconstructions are saved for benchmarks/outside_networks.py (identity, gender).
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import RidgeCV
from torch import Tensor
from torch.nn import functional as F

import analysis
from analysis.metrics.memorization import kid
from preprocess.shards.reader import ShardSet

HELD_OUT, SAMPLES, BATCH = 1240, 1000, 128


@dataclass
class Contender:
    """A trained model: images (n, C, H, W) in [0, 1] to codes (n, d), and back, and ``sample`` (n) -> images."""

    name: str
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    sample: Callable[[int], Tensor]
    best_codes: Callable[[Tensor], Tensor] | None = None
    """Codes for reconstructions, where they are not those of ``encode``."""


@dataclass
class Split:
    """Images (n, C, H, W) in [0, 1] and their factors (n, F)."""

    images: Tensor
    factors: np.ndarray


def load(shards: ShardSet, splits: tuple[str, ...]) -> Split:
    """All images and factors of some splits."""
    images = np.concatenate([part for split in splits for part in shards.images(split)])
    factors = np.concatenate([shards.annotations(split).factors for split in splits])
    return Split(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, factors)


def ours(checkpoint: Path, refined: bool) -> Contender:
    """The ladder of a checkpoint; its reconstructions are of the encoder's codes or of refined ones."""
    model = analysis.load(checkpoint)
    sizes = list(model.sizes)
    return Contender(
        "mmd-vlae, refined" if refined else "mmd-vlae",
        lambda x: torch.cat(model.encode(x * 2 - 1, refine=0), 1),
        lambda z: (model.decode(z.split(sizes, 1), output="torch") + 1) / 2,
        lambda n: (model.sample(n, output="torch") + 1) / 2,
        (lambda x: torch.cat(model.encode(x * 2 - 1), 1)) if refined else None,
    )


def pythae(kind: str, images: Tensor, latents: int, minutes: float) -> Contender:
    """One of pythae's models with its CelebA networks, trained by its own trainer for ``minutes``."""
    from pythae.data.datasets import BaseDataset  # noqa: PLC0415
    from pythae.models import INFOVAE_MMD, VAE, INFOVAE_MMD_Config, VAEConfig  # noqa: PLC0415
    from pythae.models.nn.benchmarks.celeba import (  # noqa: PLC0415
        Decoder_ResNet_AE_CELEBA,
        Encoder_ResNet_VAE_CELEBA,
    )
    from pythae.trainers import BaseTrainer, BaseTrainerConfig  # noqa: PLC0415

    logging.getLogger("pythae").setLevel(logging.ERROR)
    model_class, config_class = {"InfoVAE-MMD": (INFOVAE_MMD, INFOVAE_MMD_Config), "VAE": (VAE, VAEConfig)}[kind]
    config = config_class(input_dim=(3, 64, 64), latent_dim=latents)
    model = model_class(config, Encoder_ResNet_VAE_CELEBA(config), Decoder_ResNet_AE_CELEBA(config))
    dataset = BaseDataset(images, torch.zeros(len(images)))
    with tempfile.TemporaryDirectory() as folder:
        settings = BaseTrainerConfig(output_dir=folder, per_device_train_batch_size=BATCH, learning_rate=1e-3)
        trainer = BaseTrainer(model, dataset, training_config=settings)
        trainer.prepare_training()
        trainer.callback_handler.callbacks.clear()  # its progress bar
        began, epoch = time.monotonic(), 0
        while time.monotonic() - began < 60 * minutes:
            epoch += 1
            trainer.train_step(epoch)
    model.eval()
    return Contender(
        f"pythae {kind}, {epoch} epochs",
        lambda x: model.encoder(x).embedding,
        lambda z: model.decoder(z).reconstruction,
        lambda n: model.decoder(torch.randn(n, latents)).reconstruction,
    )


def principal_components(images: Tensor, latents: int) -> Contender:
    """PCA with as many numbers: the best linear method. Its samples are Gaussian draws of the components."""
    flat = images.flatten(1)
    mean = flat.mean(0)
    torch.manual_seed(0)
    _, values, basis = torch.svd_lowrank(flat - mean, q=latents + 20, niter=3)
    basis, scale = basis[:, :latents], values[:latents] / len(flat) ** 0.5

    def decode(z: Tensor) -> Tensor:
        return ((z * scale) @ basis.T + mean).clamp(0, 1).unflatten(1, images.shape[1:])

    return Contender(
        f"PCA-{latents}",
        lambda x: (x.flatten(1) - mean) @ basis / scale,
        decode,
        lambda n: decode(torch.randn(n, latents)),
    )


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """``function`` over rows, a batch at a time."""
    return torch.cat([function(part).float().cpu() for part in inputs.split(BATCH)])


@torch.no_grad()
def measure(model: Contender, train: Split, held_out: Split) -> tuple[list[float], Tensor]:
    """PSNR (dB), L1 of [0, 1], mean linear R², KID of samples; and the reconstructions."""
    codes = in_batches(model.encode, held_out.images)
    best = in_batches(model.best_codes, held_out.images) if model.best_codes else codes
    restored = in_batches(model.decode, best).clamp(0, 1)
    errors = (restored - held_out.images).flatten(1)
    psnr = float((-10 * torch.log10(errors.square().mean(1))).mean())
    x, known = in_batches(model.encode, train.images).numpy(), held_out.factors
    scores = []
    for column in range(known.shape[1]):
        probe = RidgeCV(np.logspace(-2, 4, 7)).fit(x, train.factors[:, column])
        scores.append(probe.score(codes.numpy(), known[:, column]))
    small = F.adaptive_avg_pool2d(model.sample(SAMPLES).float().cpu().clamp(0, 1), 8).flatten(1)
    real = F.adaptive_avg_pool2d(held_out.images[:SAMPLES], 8).flatten(1)
    return [psnr, float(errors.abs().mean()), float(np.mean(scores)), kid(small, real)[0]], restored


def main(
    checkpoint: Annotated[Path, typer.Argument(help="A finished ckpt.pt of the recipe photos.")],
    data: Annotated[Path, typer.Option(help="Folder of the shards.")],
    minutes: Annotated[float, typer.Option(help="Training time of each peer.")] = 30.0,
    pairs: Annotated[Path | None, typer.Option(help="Folder for originals and reconstructions as npz.")] = None,
) -> None:
    """Prints one row for each model."""
    shards = ShardSet.open(data)
    train, held_out = load(shards, ("train",)), load(shards, ("valid", "test"))
    held_out = Split(held_out.images[:HELD_OUT], held_out.factors[:HELD_OUT])
    latents = sum(analysis.load(checkpoint).sizes)
    table = Table("model", "PSNR, dB", "L1", "linear R²", "KID of samples, 8x8 pixels")
    makers: list[Callable[[], Contender]] = [
        lambda: ours(checkpoint, refined=False),
        lambda: ours(checkpoint, refined=True),
        lambda: principal_components(train.images, latents),
        lambda: pythae("InfoVAE-MMD", train.images, latents, minutes),
        lambda: pythae("VAE", train.images, latents, minutes),
    ]
    for make in makers:
        model = make()
        figures, restored = measure(model, train, held_out)
        table.add_row(model.name, f"{figures[0]:.2f}", *(f"{value:.4f}" for value in figures[1:]))
        if pairs is not None:
            pairs.mkdir(parents=True, exist_ok=True)
            both = [(x.permute(0, 2, 3, 1) * 255).round().byte().numpy() for x in (held_out.images, restored)]
            np.savez(
                pairs / f"{model.name.replace(', ', '-').replace(' ', '-')}.npz",
                originals=both[0],
                reconstructions=both[1],
            )
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
