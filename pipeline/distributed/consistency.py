"""Checks at start-up that all ranks have the same config, data and code. A mismatch would corrupt training silently."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch
import torch.distributed as dist

from pipeline.config.load import flat_values
from pipeline.config.schema import Config
from preprocess.errors import UserError


class RankMismatchError(UserError):
    """Two ranks differ in config, data or code."""


def run_fingerprint(config: Config, manifest_digest: str) -> dict[str, Any]:
    """Returns what must be equal on all ranks, under names that a message can use."""
    root = Path(__file__).resolve().parents[2]
    files = sorted(path for room in ("pipeline", "preprocess") for path in (root / room).rglob("*.py"))
    recipe = flat_values(config)
    del recipe["data.path"]  # each machine may keep the shards elsewhere: their manifests are compared instead
    versions = {module.__name__: str(module.__version__) for module in (torch, accelerate, np)}
    return {
        "recipe": recipe,
        "data": {"the shards' manifest": manifest_digest[:16]},
        "code": {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in files},
        "version": {"Python": platform.python_version(), **versions},
    }


def check_ranks_match(fingerprint: dict[str, Any]) -> None:
    """Compares a fingerprint (part → name → plain value) of all ranks. Every rank must call it.

    Raises:
        RankMismatchError: When two ranks differ, on every rank; names the first difference.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    fingerprints: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(fingerprints, fingerprint)
    first = fingerprints[0]
    for rank, other in enumerate(fingerprints):
        for part in first | other:
            ours, theirs = first.get(part, {}), other.get(part, {})
            for key in ours | theirs:
                if ours.get(key) != theirs.get(key):
                    raise RankMismatchError(
                        f"rank {rank} has another {part} than rank 0: {key} is {theirs.get(key, 'missing')} there and "
                        f"{ours.get(key, 'missing')} on rank 0; start the same command with the same files on every "
                        "machine"
                    )
