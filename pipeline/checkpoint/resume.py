"""Everything about resuming: which checkpoint a run continues from, what may have changed, and what is restored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.checkpoint.file import CheckpointError, checkpoint_config, read_checkpoint
from pipeline.checkpoint.folder import BEST, checkpoint_files
from pipeline.checkpoint.manager import newest_valid
from pipeline.config.load import changed_values
from pipeline.config.schema import Config
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
    """Lines to print once."""


def find_resume_point(out: Path, resume: str) -> ResumePoint | None:
    """Finds the checkpoint to continue from; None for a run that starts at step 0.

    A folder that holds checkpoints continues from its own newest one, so that the same command can be repeated.

    Args:
        out: The run's folder.
        resume: auto, never, or a checkpoint file, which is the start of an empty folder.

    Raises:
        RunFolderError: When the folder holds a run that must not be overwritten or is further than the named file.
        CheckpointError: When the checkpoint cannot be used.
    """
    if resume == "never":
        if checkpoint_files(out):
            raise RunFolderError(f"{out} holds a run already; choose another --out, or continue it with --resume auto")
        return None
    given = None if resume == "auto" else Path(resume)
    found = newest_valid(out)
    if found is None:
        return ResumePoint(given, read_checkpoint(given), str(given.resolve())) if given else None
    path, state, damaged = found
    point = ResumePoint(path, state, state.get("resumed_from"), damaged)
    if given is None or str(given.resolve()) == point.resumed_from:
        return point
    if out.resolve() not in given.resolve().parents:
        point.notes.append(f"{out} holds checkpoints already, so the run continues from them and not from {given}")
        return point
    # going back inside a folder would mix the later checkpoints with those of the new branch
    newest, step = (int(contents["progress"]["step"]) for contents in (state, read_checkpoint(given)))
    if step < newest:
        raise RunFolderError(
            f"{out} holds later checkpoints (step {newest}) than {given} (step {step}); to go back, train into another "
            "--out; to continue, use --resume auto"
        )
    return point


def resume_run(run: Run, out: Path, resume: str) -> ResumePoint | None:
    """Restores the checkpoint that `find_resume_point` finds; its notes say what a person should know.

    Raises:
        RunFolderError: When `find_resume_point` raises it.
        CheckpointError: When `find_resume_point` or `restore` raises it.
    """
    point = find_resume_point(out, resume)
    if point is not None:
        skipped = [f"skipped a checkpoint: {reason}" for reason in point.damaged.values()]
        changes = restore(run, point.state, point.path)
        point.notes = [*skipped, *point.notes, *changes, f"resumed from {point.path} at step {run.step}"]
        run.resumed_from = point.resumed_from
    return point


def best_l1(out: Path, point: ResumePoint | None) -> float:
    """Returns the validation L1 of ``out``/best.pt; infinity if there is no such file."""
    return point.state["progress"].get("best_l1", math.inf) if point and (out / BEST).exists() else math.inf


def restore(run: Run, state: dict[str, Any], path: Path) -> list[str]:
    """Continues ``run`` from a checkpoint's contents; ``path`` names the checkpoint in errors.

    Returns:
        Notes about what changed since the checkpoint.

    Raises:
        CheckpointError: When it was made with other data or an incompatible configuration; names each difference.
    """
    saved, source = checkpoint_config(state, path), run.data.source
    changes = changed_values(saved, run.config)
    refused = [f"{key}: {old} → {new}" for key, (old, new, allowed) in changes.items() if not allowed]
    before, now = str(state.get("order", "planned")), run.sample_order
    damaged, repaired = (", ".join(files) for files in _other_shards(state.get("left_out", []), source.left_out))
    reordered, other_data = (before == "planned") != (now == "planned"), state["manifest_digest"] != source.digest
    for differs, words in (
        (refused, f"with another configuration ({'; '.join(refused)}): set that back"),
        (reordered, f"in another order of samples ({before}; now {now}): set data.mode as it was"),
        (other_data, f"on other shards than {source.address} (the manifests differ): name the same shards with --data"),
        (damaged, f"with {damaged}, which is damaged now: repair it"),
        (repaired, f"without {repaired}, which is usable now: move it away again and set data.damaged=skip"),
    ):
        if differs:
            raise CheckpointError(f"{path} was trained {words}, or train into another --out")
    _load(run, state, path)
    run.changed = {key: [old, new] for key, (old, new, _) in changes.items()}
    notes = _change_notes(run, saved)
    if before != now:  # a stream is divided among processes and workers
        notes.append(
            f"the images were {before} processes and workers, now {now}: the rest of this epoch will repeat some "
            "images and skip others"
        )
    return notes


def _other_shards(before: Sequence[str], now: Sequence[str]) -> tuple[list[str], list[str]]:
    """The shards that are left out now and were not before, and those that were left out before and are not now."""
    return sorted(set(now) - set(before)), sorted(set(before) - set(now))


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
