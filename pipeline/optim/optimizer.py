"""The optimizer of a recipe, and its schedules as pure functions of the step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from pipeline.config.schema import Config, GrowthConfig
from pipeline.optim.muon import Muon


def build_optimizer(module: nn.Module, config: Config) -> torch.optim.Optimizer:
    """Builds fused Adam or AdamW, or Muon.

    Norms, gates and biases are not decayed. Each group has a ``rate_scale`` that multiplies its learning rate:
    ``optimizer.base_fan_in`` over the fan-in where that is below 1, so that wide weights move slowly.
    """
    settings = config.optimizer
    grouped: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
        base = settings.base_fan_in or fan_in
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        grouped.setdefault((min(1.0, base / fan_in), decay), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": parameters, "weight_decay": decay, "rate_scale": scale}
        for (scale, decay), parameters in grouped.items()
    ]
    if settings.name == "muon":
        return Muon(groups, settings.learning_rate, settings.momentum, settings.betas)
    kind = torch.optim.AdamW if settings.decoupled_weight_decay else torch.optim.Adam
    return kind(groups, lr=settings.learning_rate, betas=settings.betas, fused=True)


def learning_rate(config: Config, step: int) -> float:
    """Returns the learning rate of ``step`` (from 0): linear warm-up, then cosine or constant."""
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
    """Returns the share of each layer's contribution that the decoder sees: L values from 0 to 1, bottom first.

    The first ``config.share`` of the run is cut into L equal parts. In the first part one end of the ladder learns
    alone; in each later part the next layer fades in (after Li et al. 2020, section 3, who start from the top).

    Args:
        step: The optimizer step, from 0.
        steps: Steps of the run.
        layers: L.
        config: Share of the run and first layer.
    """
    grown = config.share * steps
    if layers == 1 or step >= grown:
        return [1.0] * layers
    part = grown / layers
    fades = [1.0] + [min(1.0, max(0.0, step / part - turn)) for turn in range(1, layers)]
    return fades if config.first == "bottom" else fades[::-1]
