"""Shows, measures and uses trained ladders: the command `analysis`, and a few functions for programs.

``analysis.load("photos64")`` gives a :class:`LadderModel` (docs/api.md). Importing this package is cheap: torch is
loaded with the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from analysis.model.ladder import LadderModel

__all__ = ["LadderModel", "load"]


def load(source: str | Path, device: torch.device | str | None = None) -> LadderModel:
    """Loads a trained ladder.

    Args:
        source: The name of a pretrained model ("photos64"), a checkpoint (.pt), the folder of a run or of an export, or
            OWNER/NAME on the Hugging Face Hub.
        device: Where it computes; None = the GPU if there is one.

    Raises:
        preprocess.errors.UserError: There is no such model, or it is damaged.
    """
    return __getattr__("LadderModel").load(source, device)


def __getattr__(name: str) -> Any:
    """Imports LadderModel when it is first named."""
    if name != "LadderModel":
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    from analysis.model.ladder import LadderModel  # noqa: PLC0415

    return LadderModel
