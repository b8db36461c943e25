"""What changes during a run as pure functions of the step: the learning rate and the growth of the ladder."""

from __future__ import annotations

import math

from pipeline.config import GrowthConfig, OptimizerConfig


def learning_rate_share(step: int, steps: int, global_batch_size: int, config: OptimizerConfig) -> float:
    """The learning rate of ``step`` (from 0) over the highest: linear warm-up, then cosine or constant."""
    warmup = max(1.0, config.warmup_images / global_batch_size)
    if step + 1 < warmup:
        return (step + 1) / warmup
    if config.schedule == "constant":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1.0, steps - warmup))
    return config.final_share + (1 - config.final_share) * 0.5 * (1 + math.cos(math.pi * max(0.0, progress)))


def layer_fades(step: int, steps: int, layers: int, config: GrowthConfig) -> list[float]:
    """How much of each layer's contribution the decoder sees at ``step``: (L,), bottom first, 0 … 1.

    One end of the ladder is there from the start; the others fade in one after the other, the far end last, each
    over an equal part of ``config.share`` of the run (after Li et al. 2020, section 3, who start from the top).
    """
    grown = config.share * steps
    if layers == 1 or step >= grown:
        return [1.0] * layers
    part = grown / (layers - 1)
    fades = [1.0] + [min(1.0, max(0.0, step / part - later)) for later in range(layers - 1)]
    return fades if config.first == "bottom" else fades[::-1]
