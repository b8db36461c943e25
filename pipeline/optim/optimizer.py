"""What changes during a run as pure functions of the step: the learning rate and the growth of the ladder."""

from __future__ import annotations

import math

from pipeline.config.schema import Config, GrowthConfig


def learning_rate(config: Config, step: int) -> float:
    """The learning rate of ``step`` (from 0): linear warm-up, then cosine or constant."""
    settings, steps = config.optimizer, config.training.steps
    warmup = max(1.0, settings.warmup_images / config.training.global_batch_size)
    if step + 1 < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    progress = min(1.0, max(0.0, (step - warmup) / max(1.0, steps - warmup)))
    share = settings.final_share + (1 - settings.final_share) * 0.5 * (1 + math.cos(math.pi * progress))
    return settings.learning_rate * share


def layer_fades(step: int, steps: int, layers: int, config: GrowthConfig) -> list[float]:
    """How much of each layer's contribution the decoder sees at ``step``: (L,), bottom first, 0 … 1.

    The run's first ``config.share`` is cut into L equal parts: in the first, one end of the ladder learns alone; in
    each later one the next layer fades in (after Li et al. 2020, section 3, who start from the top).
    """
    grown = config.share * steps
    if layers == 1 or step >= grown:
        return [1.0] * layers
    part = grown / layers
    fades = [1.0] + [min(1.0, max(0.0, step / part - turn)) for turn in range(1, layers)]
    return fades if config.first == "bottom" else fades[::-1]
