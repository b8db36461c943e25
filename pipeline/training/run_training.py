"""One run from the lock of its folder to its last line."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator

from pipeline.checkpoint.folder import checkpoint_files, how_to_continue, set_aside, sweep_leftovers
from pipeline.checkpoint.manager import CheckpointManager, checkpoint_state
from pipeline.checkpoint.resume import best_l1, resume_run
from pipeline.config.schema import Config
from pipeline.distributed.consistency import check_ranks_match
from pipeline.distributed.heartbeat import RankLostError, watch_ranks
from pipeline.distributed.setup import make_accelerator
from pipeline.distributed.shutdown import die_with_parent
from pipeline.distributed.signals import SIGNALS
from pipeline.run.console import TrainingLog
from pipeline.run.run_dir import MetricsLog, lock_folder, read_metrics, write_config
from pipeline.run.state import Run
from pipeline.run.trackers import start_trackers
from pipeline.training.build import batch_norm_note, build_run, describe_loader
from pipeline.training.loop import train


@dataclass
class Progress:
    """How far a run has come, for messages about its end."""

    out: Path
    resume: str
    run: Run | None = None
    first_step: int = 0
    began: float = field(default_factory=time.perf_counter)

    @property
    def has_stepped(self) -> bool:
        """Whether a step was finished since the start."""
        return self.run is not None and self.run.step > self.first_step

    def position(self) -> str:
        """Where the run was and how to continue, in words that follow "lost rank 1"."""
        if self.run is None:
            return "before the first step; run the same command again"
        return f"during step {self.run.step + 1}; {how_to_continue(self.out, self.resume)}"


def run_training(config: Config, out: Path, resume: str, allow_pipe: bool = False) -> bool:
    """Trains a recipe on this rank, together with the other ranks.

    Args:
        config: the recipe.
        out: the run's folder.
        resume: auto, never, or a checkpoint file.
        allow_pipe: whether data.path may name a program.

    Returns:
        True when the run reached its last step, False when it was asked to stop early.

    Raises:
        UserError: with a message for the terminal.
    """
    die_with_parent()
    progress = Progress(out, resume)
    accelerator = make_accelerator(config, out)
    try:
        with watch_ranks(progress.position):
            return _run(config, accelerator, progress, allow_pipe)
    except RankLostError:
        if SIGNALS.stop_requested and not progress.has_stepped:  # all ranks were asked; the others had not started
            return False
        raise


def _run(config: Config, accelerator: Accelerator, progress: Progress, allow_pipe: bool) -> bool:
    """`run_training` after the ranks have met."""
    out = progress.out
    lock = lock_folder(out) if accelerator.is_main_process else None
    if lock is not None:
        sweep_leftovers(out)
    run = build_run(config, accelerator, allow_pipe)
    point = resume_run(run, out, progress.resume)
    check_ranks_match({"checkpoint to resume": {"step": run.step}})  # file systems may show the ranks different files
    progress.run, progress.first_step = run, run.step
    log = TrainingLog(config.training.steps, run.step, shown=run.is_main)
    notes = [*run.notes, *batch_norm_note(run), *no_valid_split_note(run), *(point.notes if point else [])]
    for line in [describe(run, out), describe_loader(run), *notes]:
        log.say(line)
    logged = read_metrics(out) if run.is_main else []
    trackers = start_trackers(accelerator, config, out, run.step, max((line["step"] for line in logged), default=0))
    metrics = checkpoints = None
    if run.is_main:
        kept = [line for line in logged if line["step"] <= run.step]
        metrics = MetricsLog(out, kept, trackers.log, trackers.log_pictures)
        log.on_failure(lambda reason: metrics.append({"step": run.step, "warning": reason}))
        if run.changed:
            metrics.append({"step": run.step, "changed": run.changed})
        checkpoints = CheckpointManager(out, config.training, best_l1(out, point))
        set_aside(point.damaged if point else {})
        write_config(out, config)
    try:
        if run.step >= config.training.steps:
            if checkpoints is not None and not checkpoint_files(out):  # --resume named the end of another run
                checkpoints.save(checkpoint_state(run))
                checkpoints.wait()
            log.say(f"nothing to do: {out} is at step {run.step} of {config.training.steps}")
            return True
        finished = train(run, out, metrics, log, checkpoints)
        if not finished:
            log.say(f"stopped at step {run.step} as requested; {how_to_continue(out, progress.resume)}")
    finally:
        log.close()
        if metrics is not None:
            metrics.close()
        trackers.close()
    accelerator.wait_for_everyone()
    accelerator.end_training()
    if finished:
        seconds = time.perf_counter() - progress.began
        checkpoint = shlex.quote(str(out / "ckpt.pt"))
        log.say(f"done in {seconds:.0f} s: {out / 'ckpt.pt'}; look at it with: analysis report {checkpoint}")
    if lock is not None:
        lock.release()
    return finished


def no_valid_split_note(run: Run) -> list[str]:
    """Says that there will be no validation, if one was asked for."""
    if run.data.valid is not None or not run.config.training.validate_every_steps:
        return []
    return ["the shards have no valid split of at least 2 images: there is no validation and no best.pt"]


def describe(run: Run, out: Path) -> str:
    """One line about the run. The number of processes in it shows when a launcher started too few."""
    parameters = sum(p.numel() for p in run.model.vlae.parameters())
    sampler, device = run.data.sampler, run.accelerator.device.type
    processes = f"{sampler.world_size} process{'es' if sampler.world_size > 1 else ''}"
    return (
        f"{run.config.name}: {processes} on {device} (torch {torch.__version__}), "
        f"{run.config.training.mixed_precision} precision, {parameters / 1e6:.1f} M parameters, "
        f"{sampler.samples:,} training images, batches of {run.config.training.global_batch_size} "
        f"({sampler.local_batch_size} per process), {run.config.training.steps:,} steps → {out}"
    )
