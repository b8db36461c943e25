"""The command line of ``accelerate launch pipeline/train.py``."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Never

import torch
import typer
from accelerate import Accelerator

from pipeline.checkpoint.file import CheckpointError, newest_valid, read_checkpoint, sweep_leftovers
from pipeline.checkpoint.resume import restore
from pipeline.config.schema import Config, ConfigError, parse_overrides, resolve, to_yaml
from pipeline.data.mapped import LoaderError
from pipeline.distributed.consistency import RankMismatchError, agree
from pipeline.distributed.heartbeat import PeerLost, watched
from pipeline.distributed.setup import make_accelerator
from pipeline.distributed.shutdown import die_with_parent
from pipeline.distributed.signals import SIGNALS, STOPPED_EARLY
from pipeline.run.console import TrainingLog
from pipeline.run.run_dir import MetricsLog, RunFolderError, last_logged_step, lock_folder, write_config
from pipeline.run.state import Run
from pipeline.run.trackers import TrackerError, check_installed, start_trackers
from pipeline.training.build import batch_norm_note, build_run, describe_loader
from pipeline.training.loop import TrainingFailed, newest_kept, train
from preprocess.shards.manifest import ManifestError
from preprocess.shards.reader import ShardError

REPOSITORY = Path(__file__).resolve().parent.parent
USAGE, FAILED = 2, 1

app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)


@app.command()
def main(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Any recipe key.")
    ] = None,
    recipe: Annotated[Path, typer.Option(help="The YAML recipe.")] = REPOSITORY / "launch/recipes/celeba64.yaml",
    data: Annotated[str | None, typer.Option(help="Folder of shards or address (data.path; default shards/).")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of this run (default runs/NAME).")] = None,
    resume: Annotated[str, typer.Option(help="auto: go on where --out stopped; never; or a checkpoint.")] = "auto",
    steps: Annotated[int | None, typer.Option(help="training.steps")] = None,
    global_batch_size: Annotated[int | None, typer.Option(help="training.global_batch_size, over all ranks")] = None,
    allow_pipe: Annotated[
        bool, typer.Option("--allow-pipe", help="Let --data name a program: pipe:COMMAND {}.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="seed")] = None,
    mixed_precision: Annotated[str | None, typer.Option(help="training.mixed_precision: no, bf16 or fp16")] = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the resolved recipe and exit.")] = False,
) -> None:
    """Trains an MMD-VLAE on shards; `accelerate launch` starts one such process a device."""
    options = {
        "data.path": data,
        "training.steps": steps,
        "training.global_batch_size": global_batch_size,
        "training.mixed_precision": mixed_precision,
        "seed": seed,
    }
    try:
        leaves = parse_overrides(overrides or []) | {key: v for key, v in options.items() if v is not None}
        config = resolve(recipe, leaves)
        if print_config:
            typer.echo(to_yaml(config), nl=False)
            return
        stopped = not run_training(config, out or Path("runs") / config.name, resume, allow_pipe)
    except ConfigError as error:
        _give_up(str(error), USAGE)
    except (
        CheckpointError,
        RankMismatchError,
        LoaderError,
        ManifestError,
        PeerLost,
        RunFolderError,
        ShardError,
        TrackerError,
        TrainingFailed,
    ) as error:
        _give_up(str(error), FAILED)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _give_up(f"{error.strerror or error}{where}; checkpoints already written are whole", FAILED)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        _give_up(
            "this model and batch need more memory than the device has: choose a smaller --global-batch-size, more "
            "processes, --mixed-precision bf16, or narrower model.layers",
            FAILED,
        )
    if stopped:
        sys.stdout.flush()
        os._exit(STOPPED_EARLY)


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: on the CPU torch raises a plain RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)


def _give_up(message: str, code: int) -> Never:
    """Says why on the main process (a rank that fails alone says who it is) and exits at once.

    At once, because the other ranks may be waiting in a collective that this one will never join.
    """
    rank = int(os.environ.get("RANK", "0"))
    prefix = "" if rank == 0 else f"[rank {rank}] "
    if rank:
        time.sleep(0.5)  # the same error on every rank is said once: the launcher ends us when rank 0 has ended
    print(f"{prefix}error: {message}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)


@dataclass
class Progress:
    """How far a run has come."""

    out: Path
    run: Run | None = None
    first_step: int = 0
    began: float = field(default_factory=time.perf_counter)

    @property
    def begun(self) -> bool:
        """Whether a step was made since the start."""
        return self.run is not None and self.run.step > self.first_step

    def where(self) -> str:
        """Where the run was, and what it goes on from, in words that follow "lost rank 1"."""
        if self.run is None:
            return "before the first step; run the same command again"
        kept = newest_kept(self.out)
        goes_on = f"goes on from {kept}" if kept else "starts anew, for there is no checkpoint yet"
        return f"during step {self.run.step + 1}; the same command {goes_on}"


def run_training(config: Config, out: Path, resume: str, allow_pipe: bool = False) -> bool:
    """A whole run. True when it reached its last step, False when it was asked to stop early."""
    die_with_parent()
    progress = Progress(out)
    check_installed(config.training.trackers)
    accelerator = make_accelerator(config, out)
    try:
        with watched(progress.where):
            return _run(config, accelerator, progress, resume, allow_pipe)
    except PeerLost:
        if SIGNALS.asked and not progress.begun:  # all were asked; the others were not yet at their first step
            return False
        raise


def _run(config: Config, accelerator: Accelerator, progress: Progress, resume: str, allow_pipe: bool) -> bool:
    """What ``run_training`` does once the ranks have met."""
    out = progress.out
    lock = None
    if accelerator.is_main_process:
        lock = lock_folder(out)
        sweep_leftovers(out)
    run = build_run(config, accelerator, allow_pipe)
    notes = resume_run(run, out, resume)
    agree({"place to go on from": {"step": run.step}})  # a file system may show them different checkpoints
    progress.run, progress.first_step = run, run.step
    log = TrainingLog(config.training.steps, run.step, shown=run.is_main)
    for line in [describe(run, out), describe_loader(run), *run.notes, *batch_norm_note(run), *notes]:
        log.say(line)
    trackers = start_trackers(accelerator, config, out, run.step, last_logged_step(out))
    metrics = MetricsLog(out, run.step, trackers.log) if run.is_main else None
    if run.is_main:
        write_config(out, config)
    try:
        if run.step >= config.training.steps:
            log.say(f"nothing to do: {out} is at step {run.step} of {config.training.steps}")
            return True
        finished = train(run, out, metrics, log)
    finally:
        log.close()
        if metrics is not None:
            metrics.close()
        trackers.close()
    accelerator.wait_for_everyone()
    accelerator.end_training()
    if run.is_main and finished:
        log.say(
            f"done in {time.perf_counter() - progress.began:.0f} s: {out / 'ckpt.pt'}; look at it with: "
            f"analysis report {out / 'ckpt.pt'}"
        )
    del lock
    return finished


def resume_run(run: Run, out: Path, resume: str) -> list[str]:
    """Restores what ``resume`` names (auto, never, a checkpoint file) and returns lines to say about it."""
    if resume == "never":
        if (out / "ckpt.pt").exists():
            raise RunFolderError(f"{out} holds a run already; choose another --out, or resume it")
        return []
    if resume != "auto":
        state: dict[str, Any] = read_checkpoint(Path(resume))
        restore(run, state, Path(resume))
        return [*order_note(run, state), f"resumed from {resume} at step {run.step}"]
    found = newest_valid(out)
    if found is None:
        return []
    path, state, damaged = found
    restore(run, state, path)
    return (
        [f"passed over: {line}" for line in damaged]
        + order_note(run, state)
        + [f"resumed from {path} at step {run.step}"]
    )


def order_note(run: Run, state: dict[str, Any]) -> list[str]:
    """A warning where a stream goes on in other parts than it stopped in."""
    before, now = state.get("order", "planned"), run.sample_order
    if before == now:
        return []
    return [
        f"the images were {before} processes and workers, now {now}: the rest of this epoch repeats and misses some"
    ]


def describe(run: Run, out: Path) -> str:
    """One line that says what runs where; the world size in it shows a launcher that started too few processes."""
    parameters = sum(p.numel() for p in run.model.vlae.parameters())
    world_size, device = run.data.sampler.world_size, run.accelerator.device.type
    processes = f"{world_size} process{'es' if world_size > 1 else ''}"
    return (
        f"{run.config.name}: {processes} on {device} (torch {torch.__version__}), "
        f"{run.config.training.mixed_precision} precision, {parameters / 1e6:.1f} M parameters, "
        f"{run.data.sampler.samples:,} training images, batches of {run.config.training.global_batch_size} "
        f"({run.data.sampler.local_batch_size} a process), {run.config.training.steps:,} steps → {out}"
    )
