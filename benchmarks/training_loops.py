"""The loops that benchmarks/train.py compares: ours, its limit, and the usual one. Each returns images/s."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from pipeline.losses.objective import Objective
from pipeline.model.vlae import VLAE
from pipeline.run.state import Run
from pipeline.training.loop import train_step
from pipeline.training.step_metrics import StepMetrics


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Wall time of ``work`` up to the moment when the device has done it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def whole_loop(run: Run, steps_metrics: StepMetrics, steps: int) -> tuple[float, float]:
    """(images/s, share of the time spent waiting for data) of the trainer's steps on the trainer's feed."""
    waited = run.data.train.waited_seconds
    prefetch = run.config.data.prefetch_batches

    def work() -> None:
        for batch in run.data.train.batches(run.data.sampler, run.step, run.step + steps, prefetch):
            train_step(run, batch, steps_metrics)

    seconds = seconds_of(work, run.accelerator.device)
    images = steps * run.config.training.global_batch_size
    return images / seconds, (run.data.train.waited_seconds - waited) / seconds


def fixed_batch(run: Run, steps_metrics: StepMetrics, steps: int) -> float:
    """The same steps on one batch that is on the device already: the limit."""
    batch = next(run.data.train.batches(run.data.sampler, 0, 1, 1))

    def work() -> None:
        for _ in range(steps):
            train_step(run, batch, steps_metrics)

    return steps * run.config.training.global_batch_size / seconds_of(work, run.accelerator.device)


def write_image_folder(images: Tensor, folder: Path) -> None:
    """``images`` (n, H, W, C) uint8 as JPEG files, the way torchvision's ImageFolder wants them."""
    (folder / "all").mkdir(parents=True)
    for number, image in enumerate(images.numpy()):
        Image.fromarray(image).save(folder / "all" / f"{number:06d}.jpg", quality=95)


def plain_loop(run: Run, folder: Path, steps: int) -> float:
    """The same model and loss in a plain PyTorch loop over ImageFolder and a DataLoader of two workers."""
    config, device = run.config, run.accelerator.device
    vlae = VLAE(config.model, run.model.vlae.image_shape).to(device, memory_format=torch.channels_last)
    objective, latents = Objective(vlae, config.objective, 0, 1), sum(vlae.latent_sizes)
    optimizer = torch.optim.Adam(objective.parameters(), lr=config.optimizer.learning_rate)
    change = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])
    batch = config.training.global_batch_size
    loader = DataLoader(
        ImageFolder(str(folder), change),
        batch,
        shuffle=True,
        num_workers=2,
        drop_last=True,
        pin_memory=device.type == "cuda",
    )

    def endless() -> Iterator[Tensor]:
        for _ in itertools.count():
            for loaded, _ in loader:
                yield loaded.to(device, memory_format=torch.channels_last, non_blocking=True)

    def step(images: Tensor) -> None:
        noise, prior = torch.randn(2, len(images), latents, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.training.mixed_precision == "bf16"):
            losses = objective(images, images, noise, prior, None)
        losses.loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    batches = endless()
    step(next(batches))  # the workers' start is not counted
    return steps * batch / seconds_of(lambda: [step(next(batches)) for _ in range(steps)], device)
