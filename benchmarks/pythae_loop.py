"""pythae's own trainer of its INFOVAE_MMD with its own CelebA network, the published library nearest to ours."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import INFOVAE_MMD, INFOVAE_MMD_Config
from pythae.models.nn.benchmarks.celeba import Decoder_ResNet_AE_CELEBA, Encoder_ResNet_VAE_CELEBA
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from training_loops import seconds_of

LATENTS = 40


def build_model() -> nn.Module:
    """INFOVAE_MMD as pythae configures it, for 64x64 images, with as many latents as 4 layers of 10."""
    config = INFOVAE_MMD_Config(input_dim=(3, 64, 64), latent_dim=LATENTS)
    return INFOVAE_MMD(config, Encoder_ResNet_VAE_CELEBA(config), Decoder_ResNet_AE_CELEBA(config))


def dataset_of(images: Tensor) -> BaseDataset:
    """``images`` (n, H, W, C) uint8 as pythae wants them: float32 (n, C, H, W) in [0, 1], all in memory."""
    return BaseDataset(images.permute(0, 3, 1, 2).float() / 255, torch.zeros(len(images)))


def build_trainer(images: Tensor, batch: int, folder: Path) -> BaseTrainer:
    """Its trainer as it comes (float32, no workers), ready for ``train_step``, which is one epoch there."""
    logging.getLogger("pythae").setLevel(logging.ERROR)
    settings = BaseTrainerConfig(output_dir=str(folder), per_device_train_batch_size=batch, num_epochs=1)
    trainer = BaseTrainer(build_model(), dataset_of(images), training_config=settings)
    trainer.prepare_training()
    trainer.callback_handler.callbacks.clear()  # its progress bar
    return trainer


def pythae_loop(trainer: BaseTrainer) -> float:
    """Images/s of one of its epochs."""
    seconds = seconds_of(lambda: trainer.train_step(1), torch.device(trainer.device))
    return len(trainer.train_dataset) / seconds


def pythae_flops_per_image(images: Tensor) -> float:
    """FLOPs of forward and backward of its network and loss, for one image."""
    model = build_model()
    with FlopCounterMode(display=False) as counter:
        model(dataset_of(images)[:]).loss.backward()
    return counter.get_total_flops() / len(images)
