"""Before anything is trained, the ranks compare what they are about to do: one that differs would corrupt it unseen."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch
import torch.distributed as dist

from pipeline.config.schema import Config, flatten

_PACKAGES = ("pipeline", "preprocess")
_OWN = ("data.path",)  # each machine may keep the shards elsewhere: their manifests are compared instead


class RankMismatchError(RuntimeError):
    """The ranks differ; the message is one sentence for the terminal."""


def run_fingerprint(config: Config, manifest_digest: str) -> dict[str, Any]:
    """What must be the same on every rank, by names that a person knows."""
    root = Path(__file__).resolve().parents[2]
    files = sorted(path for name in _PACKAGES for path in (root / name).rglob("*.py"))
    code = {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in files}
    versions = {
        "Python": platform.python_version(),
        "torch": str(torch.__version__),
        "accelerate": str(accelerate.__version__),
        "numpy": str(np.__version__),
    }
    recipe = {key: value for key, value in flatten(config.plain()) if key not in _OWN}
    return {"recipe": recipe, "data": {"the shards' manifest": manifest_digest[:16]}, "code": code, "version": versions}


def agree(what: dict[str, Any]) -> None:
    """Compares ``what`` (names → names → plain values) of all ranks. Every rank must call it.

    Raises RankMismatchError on every rank, with the first difference named.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    everybody: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everybody, what)
    first = everybody[0]
    for rank, other in enumerate(everybody):
        for part in first | other:
            here, there = first.get(part, {}), other.get(part, {})
            for key in here | there:
                if here.get(key) != there.get(key):
                    raise RankMismatchError(
                        f"rank {rank} has another {part} than rank 0: {key} is {_said(there, key)} there and "
                        f"{_said(here, key)} on rank 0; start the same command with the same files on every machine"
                    )


def _said(values: dict[str, Any], key: str) -> str:
    return str(values[key]) if key in values else "missing"
