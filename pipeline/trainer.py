"""The training loop: steps, and what happens between them."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.batch_inputs import prepare_batch
from pipeline.checkpoint import write_checkpoint
from pipeline.feed import Batch
from pipeline.moving_average import decay_at
from pipeline.objective import Losses
from pipeline.preview import draw_previews
from pipeline.run_folder import MetricsLog
from pipeline.run_setup import Run, checkpoint_state
from pipeline.schedules import layer_fades, learning_rate
from pipeline.stop_request import StopRequest
from pipeline.training_log import TrainingLog
from pipeline.validation import validate

STOP_CHECK_STEPS_ON_GPU = 10  # agreeing on a stop costs a round trip; on the CPU every step can afford it


class TrainingFailed(RuntimeError):
    """The run cannot go on; the message is one sentence for the terminal."""


class Window:
    """Sums of what is logged, kept on the device so that a step never waits for the host."""

    def __init__(self, run: Run) -> None:
        layers = len(run.vlae.latent_sizes)
        self.losses = torch.zeros(2 + layers, dtype=torch.float64, device=run.accelerator.device)
        self.gradient_norm = torch.zeros((), device=run.accelerator.device)
        self.in_a_row = torch.zeros((), device=run.accelerator.device)
        self.skipped = torch.zeros((), device=run.accelerator.device)
        self.reset(run)

    def reset(self, run: Run) -> None:
        self.losses.zero_()
        self.gradient_norm.zero_()
        self.begin, self.first_step = time.perf_counter(), run.step
        self.waited_before = run.train_feed.waited_seconds

    def add(self, losses: Losses, world_size: int, norm: Tensor) -> None:
        shares = [losses.loss.detach() / world_size, losses.reconstruction, *losses.regulariser]
        finite = norm.isfinite()
        self.losses += torch.where(finite, torch.stack([s.double() for s in shares]), 0.0)
        self.gradient_norm += torch.where(finite, norm, 0.0)
        self.skipped += ~finite
        self.in_a_row = torch.where(finite, 0.0, self.in_a_row + 1)


def train_step(run: Run, batch: Batch, window: Window) -> None:
    """One optimizer step on this rank's rows of the global batch. A non-finite gradient changes no weight."""
    config, plan = run.config, run.plan
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(config, run.step) * group["rate_scale"]
    layers = len(run.vlae.latent_sizes)
    fades = layer_fades(run.step, config.training.steps, layers, config.growth)
    inputs = prepare_batch(
        batch,
        config,
        sum(run.vlae.latent_sizes),
        plan.rank * plan.local_batch_size,
        run.step,
        plan.epoch_of(run.step),
    )
    losses: Losses = run.objective(*inputs, fades)
    run.accelerator.backward(losses.loss)
    limit = config.optimizer.clip_norm or math.inf
    norm = run.accelerator.clip_grad_norm_(run.objective.parameters(), limit)
    assert isinstance(norm, Tensor)
    if run.accelerator.scaler is None:
        # fused Adam skips the step on the device when this is 1, as it does for a gradient scaler
        run.optimizer.optimizer.found_inf = (~norm.isfinite()).float()  # pyright: ignore[reportAttributeAccessIssue]
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.average.update(run.vlae, decay_at(run.step, config.training.global_batch_size, config.training.ema_images))
    window.add(losses, plan.world_size, norm)
    run.step += 1


def log_window(run: Run, window: Window, metrics: MetricsLog | None, log: TrainingLog) -> None:
    """Reads the window off the device, sums it over ranks and writes one line. Every rank must call it."""
    steps = run.step - window.first_step
    losses = window.losses.clone()
    if dist.is_initialized():
        dist.all_reduce(losses)
    in_a_row, skipped = int(window.in_a_row.item()), int(window.skipped.item())
    seconds = time.perf_counter() - window.begin
    if run.is_main and metrics is not None:
        loss, reconstruction, *regulariser = (losses / steps).tolist()
        batch = run.config.training.global_batch_size
        name = run.config.objective.regulariser
        line: dict[str, Any] = {
            "step": run.step,
            "epoch": run.plan.epoch_of(run.step),
            "samples": run.step * batch,
            "loss": loss,
            "reconstruction": reconstruction,
            name: regulariser,
            "lr": learning_rate(run.config, run.step - 1),
            "gradient_norm": float(window.gradient_norm) / steps,
            "images_per_second": steps * batch / seconds,
            "data_wait_share": (run.train_feed.waited_seconds - window.waited_before) / seconds,
            "skipped_steps": skipped,
        }
        metrics.append(line)
        scalars = {key: value for key, value in line.items() if not isinstance(value, list)}
        scalars |= {f"{name}/layer{layer}": value for layer, value in enumerate(regulariser)}
        run.accelerator.log({f"train/{key}": value for key, value in scalars.items()}, step=run.step)
        parts = f"loss {loss:.3f}  {run.config.objective.reconstruction} {reconstruction:.4f}  {name} "
        parts += " ".join(f"{value:+.4f}" for value in regulariser)
        left = (run.config.training.steps - run.step) * seconds / steps
        log.step(run.step, parts, line["images_per_second"], left)
    if in_a_row >= run.config.training.max_non_finite_steps:
        raise TrainingFailed(
            f"the gradient was not finite for {in_a_row} steps in a row, up to step {run.step}; the weights are those "
            "of the last finite step: lower optimizer.learning_rate, or train with --mixed-precision bf16 or no"
        )
    window.reset(run)


def validate_and_log(run: Run, metrics: MetricsLog | None, log: TrainingLog) -> None:
    """Validation with the averaged weights. Every rank must call it."""
    if run.valid_feed is None:
        return
    figures = validate(run.average.module, run.valid_feed, run.config, run.plan.rank, run.plan.world_size)
    if not run.is_main or metrics is None:
        return
    metrics.append({"step": run.step, "valid": figures})
    scalars = {f"valid/{key}": value for key, value in figures.items() if not isinstance(value, list)}
    for key in ("mmd", "effect"):
        scalars |= {f"valid/{key}/layer{layer}": value for layer, value in enumerate(figures[key])}
    run.accelerator.log(scalars, step=run.step)
    effects = ", ".join(f"{value:.2f}" for value in figures["effect"])
    log.say(
        f"step {run.step}: valid l1 {figures['l1']:.4f}, PSNR {figures['psnr']:.1f} dB, effect of each layer {effects}"
    )


def save(run: Run, out: Path) -> None:
    """Writes a checkpoint from the main process."""
    if run.is_main:
        write_checkpoint(out, checkpoint_state(run), run.config.training.keep_checkpoints)


def _due(step: int, every: int, last: bool = False) -> bool:
    """Whether something is to be done after ``step``; 0 = never, otherwise also after the last step."""
    return every > 0 and (last or step % every == 0)


def train(run: Run, out: Path, metrics: MetricsLog | None, log: TrainingLog) -> bool:
    """Trains up to ``training.steps``. True when it got there, False when it was asked to stop (and has saved)."""
    training = run.config.training
    on_cpu = run.accelerator.device.type == "cpu"
    stop = StopRequest(run.accelerator.device, 1 if on_cpu else STOP_CHECK_STEPS_ON_GPU)
    window = Window(run)
    saved = run.step
    batches = run.train_feed.batches(run.plan, run.step, training.steps, run.config.data.prefetch_batches)
    run.objective.train()
    for batch in batches:
        train_step(run, batch, window)
        last = run.step == training.steps
        if last or _due(run.step, training.log_every_steps):
            log_window(run, window, metrics, log)
        if _due(run.step, training.validate_every_steps, last):
            validate_and_log(run, metrics, log)
        if _due(run.step, training.preview_every_steps, last) and run.is_main:
            draw_previews(
                run.average.module, run.preview_feed, out / "previews" / f"step-{run.step:08d}", run.config.seed
            )
        asked = stop.agreed(run.step)
        if last or asked or _due(run.step, training.checkpoint_every_steps):
            save(run, out)
            saved = run.step
        if asked and not last:
            batches.close()
            log.say(f"stopped at step {saved} as asked; the same command goes on from there")
            return False
    return True
