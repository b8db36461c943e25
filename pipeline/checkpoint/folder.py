"""The checkpoints in a run's folder, as files: their names and order, and what to say about them. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

LATEST, BEST, ARCHIVE = "ckpt.pt", "best.pt", "checkpoints"


def checkpoint_files(folder: Path) -> list[Path]:
    """Returns the checkpoints of a run, unread: the newest first, the best one last."""
    archive = sorted((folder / ARCHIVE).glob("step-*.pt"), reverse=True)
    return [*archive, *(path for name in (LATEST, BEST) if (path := folder / name).exists())]


def explain_folder(folder: Path, remedy: str) -> str:
    """Says why a folder is not a checkpoint; ``remedy`` is for a folder without any."""
    files = checkpoint_files(folder)
    return f"is a folder; name a checkpoint in it, such as {files[0]}" if files else f"holds no checkpoint; {remedy}"


def how_to_continue(folder: Path, resume: str) -> str:
    """Says how to continue a run that ended early and was started with ``--resume`` ``resume``."""
    files = checkpoint_files(folder)
    if not files:
        return "there is no checkpoint yet; run the same command again"
    if resume == "never":
        return f"continue from {files[0]} with --resume auto in place of --resume never"
    return f"the same command continues from {files[0]}"


def set_aside(damaged: Iterable[Path]) -> None:
    """Renames damaged checkpoints to NAME.damaged, so that they do not count among the newest ones."""
    for path in damaged:
        path.rename(path.with_name(f"{path.name}.damaged"))


def sweep_leftovers(folder: Path) -> None:
    """Removes the unfinished files of a killed run."""
    for leftover in [*folder.glob(".*.tmp"), *(folder / ARCHIVE).glob(".*.tmp")]:
        leftover.unlink(missing_ok=True)
