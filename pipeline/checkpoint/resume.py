"""Everything about resuming: which checkpoint a run continues from, what may have changed, and what is restored."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.checkpoint.file import BEST, CheckpointError, checkpoint_config, read_checkpoint
from pipeline.checkpoint.manager import checkpoint_files, newest_valid
from pipeline.config.load import changed_values
from pipeline.config.schema import Config
from pipeline.data.shard_checks import refuse_other_shards
from pipeline.optim.optimizer import learning_rate
from pipeline.run.run_dir import RunFolderError
from pipeline.run.state import Run
from preprocess.errors import first_line


@dataclass
class ResumePoint:
    """The checkpoint that a run continues from."""

    path: Path
    state: dict[str, Any]
    resumed_from: str | None = None
    """The file named by --resume that the run, or the run before it, started from."""
    damaged: dict[Path, str] = field(default_factory=dict)
    """Newer checkpoints that cannot be used, each with the reason."""
    notes: list[str] = field(default_factory=list)


def find_resume_point(out: Path, resume: str) -> ResumePoint | None:
    """Finds the checkpoint to continue from.

    A folder that holds checkpoints continues from its own newest one, so that the same command can be repeated. A file
    named by --resume is the start of an empty folder.

    Args:
        out: the run's folder.
        resume: auto, never, or a checkpoint file.

    Returns:
        None for a run that starts at step 0.

    Raises:
        RunFolderError: the folder holds a run that must not be overwritten or that is further than the named file.
        CheckpointError: the checkpoint cannot be used.
    """
    files = checkpoint_files(out)
    if resume == "never":
        if files:
            raise RunFolderError(f"{out} holds a run already; choose another --out, or continue it with --resume auto")
        return None
    given = None if resume == "auto" else Path(resume)
    if not files:
        if given is None:
            return None
        return ResumePoint(given, read_checkpoint(given), str(given.resolve()))
    found = newest_valid(out)
    if found is None:
        return None
    path, state, damaged = found
    point = ResumePoint(path, state, state.get("resumed_from"), damaged)
    if given is not None and str(given.resolve()) != point.resumed_from:
        _check_named_file(given, out, point)
    return point


def _check_named_file(given: Path, out: Path, point: ResumePoint) -> None:
    """Refuses to go back inside a folder: the later checkpoints would mix with those of the new branch."""
    newest = int(point.state["progress"]["step"])
    if out.resolve() not in given.resolve().parents:
        point.notes.append(f"{out} holds checkpoints already, so the run continues from them and not from {given}")
        return
    step = int(read_checkpoint(given)["progress"]["step"])
    if step < newest:
        raise RunFolderError(
            f"{out} holds later checkpoints (step {newest}) than {given} (step {step}); to go back, train into another "
            "--out; to continue, use --resume auto"
        )


def resume_run(run: Run, out: Path, resume: str) -> ResumePoint | None:
    """Restores the checkpoint that ``resume`` leads to; its notes say what a person should know.

    Raises:
        CheckpointError, RunFolderError: see `find_resume_point` and `restore`.
    """
    point = find_resume_point(out, resume)
    if point is None:
        return None
    notes = [f"skipped a checkpoint: {reason}" for reason in point.damaged.values()]
    point.notes = [*notes, *point.notes, *restore(run, point.state, point.path)]
    point.notes.append(f"resumed from {point.path} at step {run.step}")
    run.resumed_from = point.resumed_from
    return point


def best_l1(out: Path, point: ResumePoint | None) -> float:
    """Returns the validation L1 of ``out``/best.pt; infinity if there is no such file."""
    return point.state["progress"].get("best_l1", math.inf) if point and (out / BEST).exists() else math.inf


def set_aside(damaged: dict[Path, str]) -> None:
    """Renames damaged checkpoints to NAME.damaged, so that they do not count among the newest ones."""
    for path in damaged:
        path.rename(path.with_name(f"{path.name}.damaged"))


def restore(run: Run, state: dict[str, Any], path: Path) -> list[str]:
    """Continues ``run`` from a checkpoint's contents.

    Returns:
        Notes about what changed since the checkpoint.

    Raises:
        CheckpointError: it was made with other data or an incompatible configuration; names each difference.
    """
    saved = checkpoint_config(state, path)
    changes = changed_values(saved, run.config)
    refused = [f"{key}: {old} → {new}" for key, (old, new, allowed) in changes.items() if not allowed]
    if refused:
        raise CheckpointError(
            f"{path} was trained with another configuration ({'; '.join(refused)}): set that back, or train into "
            "another --out"
        )
    before, now = str(state.get("order", "planned")), run.sample_order
    if (before == "planned") != (now == "planned"):
        raise CheckpointError(
            f"{path} was trained in another order of samples ({before}; now {now}): set data.mode as it was, or train "
            "into another --out"
        )
    if state["manifest_digest"] != run.data.source.digest:
        raise CheckpointError(
            f"{path} was trained on other shards than {run.data.source.address} (the manifests differ); name the same "
            "shards with --data, or train into another --out"
        )
    if reason := refuse_other_shards(state.get("left_out", []), run.data.source.left_out, str(path)):
        raise CheckpointError(reason)
    _load(run, state, path)
    run.changed = {key: [old, new] for key, (old, new, _) in changes.items()}
    return [*_change_notes(run, saved), *_order_note(before, now)]


def _load(run: Run, state: dict[str, Any], path: Path) -> None:
    try:
        run.model.vlae.load_state_dict(state["model"])
        run.model.average.module.load_state_dict(state["ema"] or state["model"])
        run.model.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] is not None and run.accelerator.scaler is not None:
            run.accelerator.scaler.load_state_dict(state["scaler"])
        run.step = int(state["progress"]["step"])
        run.seconds = state["progress"].get("seconds", 0.0)
        # growth keeps its course when a run is made longer, so that a grown layer is not faded out again
        run.growth_steps = min(int(state["progress"]["growth_steps"]), run.config.training.steps)
    except Exception as error:  # torch raises nearly anything on states of another shape
        raise CheckpointError(f"{path} does not fit this model: {first_line(error)}") from None


def _change_notes(run: Run, saved: Config) -> list[str]:
    """What was changed in the recipe, and the new course of the learning rate."""
    if not run.changed:
        return []
    notes = ["changed: " + "; ".join(f"{key} {old} → {new}" for key, (old, new) in run.changed.items())]
    before, after = learning_rate(saved, run.step), learning_rate(run.config, run.step)
    if before != after:
        settings = run.config.optimizer
        notes.append(
            f"the learning rate changes from {before:.2g} to {after:.2g} at step {run.step}: the {settings.schedule} "
            f"schedule now runs from {settings.learning_rate:.2g} over {run.config.training.steps:,} steps; lower "
            "optimizer.learning_rate for a smaller jump"
        )
    return notes


def _order_note(before: str, now: str) -> list[str]:
    """A stream is divided among processes and workers, so their number sets which images the epoch still has."""
    if before == now:
        return []
    return [
        f"the images were {before} processes and workers, now {now}: the rest of this epoch will repeat some images "
        "and skip others"
    ]


def how_to_continue(out: Path, resume: str) -> str:
    """Says how to continue a run that ended early."""
    files = checkpoint_files(out)
    if not files:
        return "there is no checkpoint yet; run the same command again"
    if resume == "never":
        return f"continue from {files[0]} with --resume auto in place of --resume never"
    return f"the same command continues from {files[0]}"
