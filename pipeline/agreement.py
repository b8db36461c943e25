"""Whether all ranks were started with the same: recipe, shards, code.

Ranks that differ train something that nobody asked for, or wait for each other until a time-out.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
import torch.distributed as dist

CODE = Path(__file__).resolve().parent.parent
PACKAGES = ("pipeline", "preprocess")
MOST_SHOWN = 3


class RanksDiffer(RuntimeError):
    """The ranks were started differently; the message is one sentence for the terminal."""


@cache
def code_version() -> str:
    """SHA-256 over the sources that train, in order of their names, with Python's and torch's versions."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((CODE / package).rglob("*.py")):
            digest.update(str(path.relative_to(CODE)).encode() + b"\0" + path.read_bytes())
    return f"{digest.hexdigest()[:16]} (Python {platform.python_version()}, torch {torch.__version__})"


def check_agreement(values: Mapping[str, object], device: torch.device) -> None:
    """Compares ``values`` over all ranks, which must call it together. Raises RanksDiffer naming rank and difference.

    The values travel as JSON text in byte tensors: nothing that another machine sent is unpickled.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    first, *others = _gathered(json.dumps({key: str(value) for key, value in values.items()}).encode(), device)
    for rank, theirs in enumerate(others, start=1):
        keys = [key for key in first | theirs if first.get(key) != theirs.get(key)]
        if keys:
            shown = "; ".join(f"{key}: {first.get(key)} there, {theirs.get(key)} here" for key in keys[:MOST_SHOWN])
            more = f" and {len(keys) - MOST_SHOWN} more" if len(keys) > MOST_SHOWN else ""
            raise RanksDiffer(
                f"rank {rank} was started with something else than rank 0 ({shown}{more}): "
                "start all ranks with the same code, command and shards"
            )


def _gathered(text: bytes, device: torch.device) -> list[dict[str, str]]:
    """Every rank's JSON object, in the order of ranks."""
    size = torch.tensor([len(text)], device=device)
    sizes = [torch.zeros_like(size) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, size)
    longest = max(int(s.item()) for s in sizes)
    mine = torch.zeros(longest, dtype=torch.uint8, device=device)
    mine[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8).to(device)
    rows = [torch.empty_like(mine) for _ in sizes]
    dist.all_gather(rows, mine)
    return [json.loads(bytes(row[: int(s.item())].tolist())) for row, s in zip(rows, sizes, strict=True)]
