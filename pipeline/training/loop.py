"""The training loop: steps, and what happens between them."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.checkpoint.manager import CheckpointManager, checkpoint_files, checkpoint_state
from pipeline.data.augment import prepare_batch
from pipeline.data.batch import Batch
from pipeline.distributed.heartbeat import set_collective_timeout
from pipeline.distributed.shutdown import StopRequest
from pipeline.losses.objective import Losses
from pipeline.optim.ema import decay_at
from pipeline.optim.optimizer import layer_fades, learning_rate
from pipeline.run.console import TrainingLog
from pipeline.run.run_dir import MetricsLog
from pipeline.run.state import Run
from pipeline.training.previews import draw_previews
from pipeline.training.validation import validate
from preprocess.errors import UserError

STOP_CHECK_STEPS_ON_GPU = 10  # agreeing on a stop costs a round trip; on the CPU every step can afford it


class TrainingFailed(UserError):
    """The run cannot continue."""


class Window:
    """Sums of what is logged, kept on the device so that a step never waits for the host."""

    def __init__(self, run: Run) -> None:
        layers = len(run.model.vlae.latent_sizes)
        self.parameter_names = [name for name, p in run.model.vlae.named_parameters() if p.requires_grad]
        self.not_finite = torch.zeros(len(self.parameter_names), dtype=torch.bool, device=run.accelerator.device)
        self.losses = torch.zeros(2 + layers, dtype=torch.float64, device=run.accelerator.device)
        self.gradient_norm = torch.zeros((), device=run.accelerator.device)
        self.in_a_row = torch.zeros((), device=run.accelerator.device)
        self.skipped = torch.zeros((), device=run.accelerator.device)
        self.reset(run)

    def reset(self, run: Run) -> None:
        self.losses.zero_()
        self.gradient_norm.zero_()
        self.begin, self.first_step = time.perf_counter(), run.step
        self.waited_before = run.data.train.waited_seconds

    def add(self, losses: Losses, world_size: int, norms: Tensor, norm: Tensor) -> None:
        """``norms`` (P,) of each parameter's gradient and ``norm`` () of all, both averaged over ranks."""
        shares = [losses.loss.detach() / world_size, losses.reconstruction, *losses.regularizer]
        finite = norm.isfinite()
        self.losses += torch.where(finite, torch.stack([s.double() for s in shares]), 0.0)
        self.gradient_norm += torch.where(finite, norm, 0.0)
        self.skipped += ~finite
        self.not_finite = torch.where(finite, self.not_finite, ~norms.isfinite())
        self.in_a_row = torch.where(finite, 0.0, self.in_a_row + 1)


def train_step(run: Run, batch: Batch, window: Window) -> None:
    """One optimizer step on this rank's rows of the global batch. A non-finite gradient changes no weight."""
    config, plan = run.config, run.data.sampler
    for group in run.model.optimizer.param_groups:
        group["lr"] = learning_rate(config, run.step) * group["rate_scale"]
    layers = len(run.model.vlae.latent_sizes)
    fades = layer_fades(run.step, run.growth_steps, layers, config.growth)
    inputs = prepare_batch(
        batch,
        config,
        sum(run.model.vlae.latent_sizes),
        plan.rank * plan.local_batch_size,
        run.step,
        plan.epoch_of(run.step),
    )
    losses: Losses = run.model.objective(*inputs, fades)
    run.accelerator.backward(losses.loss)
    norms, norm = clip_gradient(run)
    if run.accelerator.scaler is None:
        # fused Adam skips the step on the device when this is 1, as it does for a gradient scaler
        run.model.optimizer.optimizer.found_inf = (~norm.isfinite()).float()  # pyright: ignore[reportAttributeAccessIssue]
    run.model.optimizer.step()
    run.model.optimizer.zero_grad()
    run.model.average.update(decay_at(run.step, config.training.global_batch_size, config.training.ema_images))
    window.add(losses, plan.world_size, norms, norm)
    run.step += 1


def clip_gradient(run: Run) -> tuple[Tensor, Tensor]:
    """Scales the gradient down to ``optimizer.clip_norm``. Returns the norms before: (P,) a parameter and () of all."""
    run.accelerator.unscale_gradients()
    parameters = [p for p in run.model.vlae.parameters() if p.requires_grad]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    norms = torch.stack(torch._foreach_norm(gradients))  # pyright: ignore[reportPrivateImportUsage]: all in one kernel
    norm = torch.linalg.vector_norm(norms)
    if run.config.optimizer.clip_norm:
        torch.nn.utils.clip_grads_with_norm_(parameters, run.config.optimizer.clip_norm, norm)
    return norms, norm


def nonfinite_parameters(window: Window) -> str:
    """The parameters whose gradients were not finite in the last such step, in words."""
    names = [name for name, bad in zip(window.parameter_names, window.not_finite.tolist(), strict=True) if bad]
    if len(names) == len(window.parameter_names):
        return "in every layer (the loss itself was not finite)"
    return f"in {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def log_window(run: Run, out: Path, window: Window, metrics: MetricsLog | None, log: TrainingLog) -> None:
    """Reads the window off the device, sums it over ranks and writes one line. Every rank must call it."""
    steps = run.step - window.first_step
    losses = window.losses.clone()
    if dist.is_initialized():
        dist.all_reduce(losses)
    in_a_row, skipped = int(window.in_a_row.item()), int(window.skipped.item())
    seconds = time.perf_counter() - window.begin
    if run.is_main and metrics is not None:
        finite = steps - skipped
        loss, reconstruction, *regularizer = (losses / finite).tolist()  # nan where no step was finite
        batch = run.config.training.global_batch_size
        name = run.config.objective.regularizer
        line: dict[str, Any] = {
            "step": run.step,
            "epoch": run.data.sampler.epoch_of(run.step),
            "samples": run.step * batch,
            "loss": loss,
            "reconstruction": reconstruction,
            name: regularizer,
            "lr": learning_rate(run.config, run.step - 1),
            "gradient_norm": float(window.gradient_norm / finite),
            "images_per_second": steps * batch / seconds,
            "data_wait_share": (run.data.train.waited_seconds - window.waited_before) / seconds,
            "skipped_steps": skipped,
        }
        metrics.append(line)
        parts = f"loss {loss:.3f}  {run.config.objective.reconstruction} {reconstruction:.4f}  {name} "
        parts += " ".join(f"{value:+.4f}" for value in regularizer)
        if skipped:
            parts += f"  {skipped} of {steps} steps skipped: the gradient is not finite"
        left = (run.config.training.steps - run.step) * seconds / steps
        log.step(run.step, parts, line["images_per_second"], left)
    if in_a_row >= run.config.training.max_non_finite_steps:
        raise TrainingFailed(
            f"the gradient was not finite for {in_a_row} steps in a row, up to step {run.step}, "
            f"{nonfinite_parameters(window)}; {last_good(out)}; lower optimizer.learning_rate, or train with "
            "--mixed-precision bf16 or no"
        )
    window.reset(run)


def last_good(out: Path) -> str:
    """Names the checkpoint from which a failed run can continue. Only finite weights are ever saved."""
    files = checkpoint_files(out)
    return f"the last good checkpoint is {files[0]}" if files else "there is no checkpoint yet"


def validate_and_log(run: Run, metrics: MetricsLog | None, log: TrainingLog) -> float:
    """Validation with the averaged weights; the held-out L1 of [−1, 1] values. Every rank must call it."""
    if run.data.valid is None:
        return math.inf
    figures = validate(
        run.model.average.module, run.data.valid, run.config, run.data.sampler.rank, run.data.sampler.world_size
    )
    if not run.is_main or metrics is None:
        return figures["l1"]
    metrics.append({"step": run.step, "valid": figures})
    effects = ", ".join(f"{value:.2f}" for value in figures["effect"])
    log.say(
        f"step {run.step}: valid l1 {figures['l1']:.4f}, PSNR {figures['psnr']:.1f} dB, effect of each layer {effects}"
    )
    return figures["l1"]


def _due(step: int, every: int, last: bool = False) -> bool:
    """Whether something is to be done after ``step``; 0 = never, otherwise also after the last step."""
    return every > 0 and (last or step % every == 0)


def train(
    run: Run, out: Path, metrics: MetricsLog | None, log: TrainingLog, checkpoints: CheckpointManager | None
) -> bool:
    """Trains up to ``training.steps``.

    Args:
        run: this rank's run.
        out: the run's folder.
        metrics: on the main process, the log of metrics.
        log: the terminal.
        checkpoints: on the main process, their manager.

    Returns:
        True when the run reached its last step, False when it was asked to stop.

    Raises:
        TrainingFailed: the gradient or the weights are not finite.
    """
    training = run.config.training
    on_cpu = run.accelerator.device.type == "cpu"
    timeout = training.collective_timeout_seconds
    stop = StopRequest(run.accelerator.device, 1 if on_cpu else STOP_CHECK_STEPS_ON_GPU, timedelta(seconds=timeout))
    window = Window(run)
    batches = run.data.train.batches(run.data.sampler, run.step, training.steps, run.config.data.prefetch_batches)
    run.model.objective.train()
    first = run.step
    try:
        for batch in batches:
            train_step(run, batch, window)
            if run.step == first + 1:  # with whatever was compiled
                set_collective_timeout(timeout)
            last = run.step == training.steps
            if last or _due(run.step, training.log_every_steps):
                log_window(run, out, window, metrics, log)
            valid_l1 = None
            if _due(run.step, training.validate_every_steps, last):
                valid_l1 = validate_and_log(run, metrics, log)
            if run.is_main and _due(run.step, training.preview_every_steps, last):
                folder = out / "previews" / f"step-{run.step:08d}"
                draw_previews(run.model.average.module, run.data.preview, folder, run.config.seed)
            should_stop = stop.should_stop(run.step)
            if checkpoints is not None and (last or should_stop or checkpoints.is_due(run.step, valid_l1)):
                save_if_finite(run, out, window, checkpoints, valid_l1, log)
            if should_stop:
                break
    finally:
        batches.close()
        if checkpoints is not None:
            checkpoints.wait()
    if run.step == training.steps:
        refuse_non_finite_end(run, out, window)
    return run.step == training.steps


def save_if_finite(
    run: Run,
    out: Path,
    window: Window,
    checkpoints: CheckpointManager,
    valid_l1: float | None,
    log: TrainingLog,
) -> None:
    """Saves a checkpoint, unless the last step or the weights are not finite: the older checkpoints then remain."""
    if window.in_a_row.item() > 0:
        checkpoints.postpone()
    elif checkpoints.save(checkpoint_state(run), valid_l1):
        return
    log.say(f"step {run.step}: no checkpoint, because the run is not finite; {last_good(out)}")


def refuse_non_finite_end(run: Run, out: Path, window: Window) -> None:
    """Raises TrainingFailed if the run ended with a gradient or weights that are not finite."""
    weights = [*run.model.vlae.parameters(), *run.model.average.module.parameters()]
    if window.in_a_row.item() > 0 or not all(bool(weight.isfinite().all()) for weight in weights):
        raise TrainingFailed(
            f"the run ended at step {run.step} and is not finite; {last_good(out)}; lower optimizer.learning_rate and "
            "run the same command again"
        )
