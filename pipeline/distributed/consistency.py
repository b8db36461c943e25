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

_PACKAGES = ("pipeline", "preprocess")
_LOCAL_KEYS = ("data.path",)  # each machine may keep the shards elsewhere: their manifests are compared instead


class RankMismatchError(UserError):
    """Two ranks differ in config, data or code."""


def run_fingerprint(config: Config, manifest_digest: str) -> dict[str, Any]:
    """Returns what must be equal on all ranks, under names that a message can use."""
    root = Path(__file__).resolve().parents[2]
    files = sorted(path for name in _PACKAGES for path in (root / name).rglob("*.py"))
    code = {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in files}
    versions = {
        "Python": platform.python_version(),
        "torch": str(torch.__version__),
        "accelerate": str(accelerate.__version__),
        "numpy": str(np.__version__),
    }
    recipe = {key: value for key, value in flat_values(config).items() if key not in _LOCAL_KEYS}
    return {"recipe": recipe, "data": {"the shards' manifest": manifest_digest[:16]}, "code": code, "version": versions}


def check_ranks_match(fingerprint: dict[str, Any]) -> None:
    """Compares a fingerprint (part → name → plain value) of all ranks. Every rank must call it.

    Raises:
        RankMismatchError: on every rank; names the first difference.
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
