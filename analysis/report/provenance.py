"""What was trained on what: the facts of one checkpoint that open a report."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from analysis.inputs.context import EvalContext


def provenance(context: EvalContext, log: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Collects the facts of ``metrics.json``'s field ``provenance``; what is not known is None.

    Args:
        context: The checkpoint and its shards.
        log: Lines of the run's metrics.jsonl; [] where there are none beside the checkpoint.
    """
    manifest, state = context.shards.manifest, context.state
    with context.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    height, width, channels = manifest.image_shape
    return {
        "recipe": context.config.name,
        "data": manifest.source.kind,
        "data_fingerprint": context.shards.digest,
        "trained_on_these_shards": context.shards.digest == state.get("manifest_digest"),
        "images": {name: split.samples for name, split in manifest.splits.items()},
        "image_shape": [height, width, channels],
        "parameters": sum(parameter.numel() for parameter in context.vlae.parameters()),
        "training_seconds": training_seconds(log),
        "hardware": state.get("hardware"),
        "versions": {"mmd-vlae": _own_version(), **(state.get("versions") or {})},
        "checkpoint_sha256": digest,
    }


def training_seconds(log: Sequence[Mapping[str, Any]]) -> float | None:
    """Adds up the time of the logged steps from their images per second; None without a log."""
    total, before = 0.0, 0
    for line in log:
        speed, samples = line.get("images_per_second"), line.get("samples")
        if speed and samples:
            total += max(0, samples - before) / speed
            before = samples
    return total or None


def duration(seconds: float | None) -> str | None:
    """Seconds in words: '45 s', '12 min', '3.5 h'."""
    if seconds is None:
        return None
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _own_version() -> str | None:
    try:
        return version("mmd-vlae")
    except PackageNotFoundError:
        return None
