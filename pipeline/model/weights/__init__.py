"""Models that come with the package, one exported folder each (docs/formats.md). Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

__all__ = ["FOLDER", "pretrained_names"]

FOLDER = Path(__file__).parent


def pretrained_names() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in FOLDER.glob("*/config.json"))
