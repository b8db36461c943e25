"""The training loop: steps, and what happens between them."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.checkpoint.folder import checkpoint_files
from pipeline.checkpoint.manager import CheckpointManager, checkpoint_state
from pipeline.data.augment import prepare_batch
from pipeline.data.batch import Batch, LoaderError, StoppedWaiting
from pipeline.distributed.heartbeat import set_collective_timeout
from pipeline.distributed.shutdown import StopRequest
from pipeline.losses.objective import Losses
from pipeline.optim.ema import decay_at
from pipeline.optim.optimizer import layer_fades, learning_rate
from pipeline.run.console import TrainingLog
from pipeline.run.run_dir import MetricsLog
from pipeline.run.state import Run
from pipeline.training.previews import draw_previews, save_png
from pipeline.training.step_metrics import StepMetrics
from pipeline.training.threads import AdaptiveThreads
from pipeline.training.validation import validate
from preprocess.errors import UserError

STOP_CHECK_STEPS_ON_GPU = 10
"""The check for a request to stop costs a round trip. On the CPU every step can afford it."""


class TrainingFailed(UserError):
    """The run cannot continue."""


def train_step(run: Run, batch: Batch, steps: StepMetrics) -> None:
    """Makes one optimizer step on this rank's part of the global batch. A non-finite gradient changes no weight."""
    config, sampler = run.config, run.data.sampler
    for group in run.model.optimizer.param_groups:
        group["lr"] = learning_rate(config, run.step) * group["rate_scale"]
    latents = run.model.vlae.latent_sizes
    fades = layer_fades(run.step, run.growth_steps, len(latents), config.growth)
    inputs = prepare_batch(batch, config, sum(latents), sampler.first_position, run.step, sampler.epoch_of(run.step))
    losses: Losses = run.model.objective(*inputs, fades)
    run.accelerator.backward(losses.loss)
    norms, norm = clip_gradient(run)
    if run.accelerator.scaler is None:
        # fused Adam skips the step on the device when this is 1, as it does for a gradient scaler
        run.model.optimizer.optimizer.found_inf = (~norm.isfinite()).float()  # pyright: ignore[reportAttributeAccessIssue]
    run.model.optimizer.step()
    run.model.optimizer.zero_grad()
    run.model.average.update(decay_at(run.step, config.training.global_batch_size, config.training.ema_images))
    steps.add(losses, sampler.world_size, norms, norm)
    run.step += 1


def clip_gradient(run: Run) -> tuple[Tensor, Tensor]:
    """Scales the gradient down to ``optimizer.clip_norm``.

    Returns:
        The norms before: (P,) of each parameter's gradient, and () of all of them.
    """
    run.accelerator.unscale_gradients()
    parameters = [p for p in run.model.vlae.parameters() if p.requires_grad]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    norms = torch.stack(torch._foreach_norm(gradients))  # pyright: ignore[reportPrivateImportUsage]: all in one kernel
    norm = torch.linalg.vector_norm(norms)
    if run.config.optimizer.clip_norm:
        torch.nn.utils.clip_grads_with_norm_(parameters, run.config.optimizer.clip_norm, norm)
    return norms, norm


def log_steps(run: Run, out: Path, steps: StepMetrics, metrics: MetricsLog | None, log: TrainingLog) -> None:
    """Writes one line about the steps since the last one. Every rank must call it.

    Raises:
        TrainingFailed: The gradients were not finite for too many steps in a row.
    """
    line = steps.read(run)
    if run.is_main and metrics is not None:
        metrics.append(line)
        log.step(run.step, describe_steps(run, line), line["images_per_second"], seconds_left(run, line))
    if (in_a_row := steps.nonfinite_in_a_row) >= run.config.training.max_non_finite_steps:
        raise TrainingFailed(
            f"the gradient was not finite for {in_a_row} steps in a row, up to step {run.step}, "
            f"{steps.nonfinite_parameters()}; {last_good(out)}; lower optimizer.learning_rate, or train with "
            "--mixed-precision bf16 or no"
        )
    steps.reset(run)


def describe_steps(run: Run, line: dict[str, Any]) -> str:
    """Returns the losses of a line of the log for the terminal."""
    objective = run.config.objective
    text = f"loss {line['loss']:.3f}  {objective.reconstruction} {line['reconstruction']:.4f}  {objective.regularizer} "
    text += " ".join(f"{value:+.4f}" for value in line[objective.regularizer])
    if line["skipped_steps"]:
        text += f"  {line['skipped_steps']} steps skipped so far: the gradient was not finite"
    return text


def seconds_left(run: Run, line: dict[str, Any]) -> float:
    """Returns the time to the last step at the present rate."""
    training = run.config.training
    return (training.steps - run.step) * training.global_batch_size / line["images_per_second"]


def last_good(out: Path) -> str:
    """Names the checkpoint from which a failed run can continue. Only finite weights are ever saved."""
    files = checkpoint_files(out)
    return f"the last good checkpoint is {files[0]}" if files else "there is no checkpoint yet"


def validate_and_log(run: Run, metrics: MetricsLog | None, log: TrainingLog) -> float:
    """Validates the averaged weights. Every rank must call it.

    Returns:
        The held-out L1 of values in [−1, 1]; infinity where there is no valid split.
    """
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
    """Whether something that happens ``every`` steps happens after ``step``: 0 = never, otherwise at the end too."""
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
        LoaderError: images cannot be loaded. The steps so far are saved.
    """
    training = run.config.training
    on_cpu = run.accelerator.device.type == "cpu"
    timeout = training.collective_timeout_seconds
    stop = StopRequest(run.accelerator.device, 1 if on_cpu else STOP_CHECK_STEPS_ON_GPU, timedelta(seconds=timeout))
    steps, threads = StepMetrics(run), AdaptiveThreads(run.accelerator.device, run.data.sampler.world_size)
    batches = run.data.train.batches(run.data.sampler, run.step, training.steps, run.config.data.prefetch_batches)
    run.model.objective.train()
    first, began = run.step, time.perf_counter() - run.seconds
    try:
        for batch in batches:
            with threads.step():
                train_step(run, batch, steps)
            run.seconds = time.perf_counter() - began
            if run.step == first + 1:  # compilation is done
                set_collective_timeout(timeout)
            last = run.step == training.steps
            if last or _due(run.step, training.log_every_steps):
                log_steps(run, out, steps, metrics, log)
            valid_l1 = (
                validate_and_log(run, metrics, log) if _due(run.step, training.validate_every_steps, last) else None
            )
            if run.is_main and _due(run.step, training.preview_every_steps, last):
                save_previews(run, out, metrics)
            should_stop = stop.should_stop(run.step)
            if checkpoints is not None and (last or should_stop or checkpoints.is_due(run.step, valid_l1)):
                save_if_finite(run, out, steps, checkpoints, valid_l1, log)
            if should_stop:
                break
    except (StoppedWaiting, LoaderError) as error:
        end_without_batch(error, run, out, steps, checkpoints, log)
    finally:
        batches.close()
        if checkpoints is not None:
            checkpoints.wait()
    if run.step == training.steps:
        refuse_non_finite_end(run, out, steps)
    return run.step == training.steps


def save_previews(run: Run, out: Path, metrics: MetricsLog | None) -> None:
    """Draws the previews of this step, writes them into the run's folder and shows them in the trackers."""
    pictures = draw_previews(run.model.average.module, run.data.preview, run.config.seed)
    for name, picture in pictures.items():
        save_png(picture, out / "previews" / f"step-{run.step:08d}" / f"{name}.png")
    if metrics is not None:
        metrics.show_pictures(run.step, pictures)


def save_if_finite(
    run: Run,
    out: Path,
    steps: StepMetrics,
    checkpoints: CheckpointManager,
    valid_l1: float | None,
    log: TrainingLog,
) -> None:
    """Saves a checkpoint, unless the last step or the weights are not finite: the older checkpoints then remain."""
    said_before = checkpoints.postponed
    if steps.nonfinite_in_a_row:
        checkpoints.postpone()
    elif checkpoints.save(checkpoint_state(run), valid_l1):
        return
    if said_before:
        return
    log.say(f"step {run.step}: no checkpoint, because the run is not finite; {last_good(out)}")


def end_without_batch(
    error: StoppedWaiting | LoaderError,
    run: Run,
    out: Path,
    steps: StepMetrics,
    checkpoints: CheckpointManager | None,
    log: TrainingLog,
) -> None:
    """Saves the steps so far where the next batch does not come.

    Raises:
        LoaderError: When ``error`` is one; names the checkpoint, too.
    """
    if checkpoints is not None and run.step:
        save_if_finite(run, out, steps, checkpoints, None, log)
        checkpoints.wait()
    if isinstance(error, LoaderError):
        raise LoaderError(f"{error}; {last_good(out)}") from None


def refuse_non_finite_end(run: Run, out: Path, steps: StepMetrics) -> None:
    """Refuses a run that ended with a gradient or weights that are not finite.

    Raises:
        TrainingFailed: When it did.
    """
    weights = [*run.model.vlae.parameters(), *run.model.average.module.parameters()]
    if steps.nonfinite_in_a_row or not all(bool(weight.isfinite().all()) for weight in weights):
        raise TrainingFailed(
            f"the run ended at step {run.step} and is not finite; {last_good(out)}; lower optimizer.learning_rate and "
            "run the same command again"
        )
