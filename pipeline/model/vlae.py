"""The variational ladder autoencoder (paper, Figure 1; Zhao et al. 2017), layers 0 = bottom … L-1 = top.

Shape letters: B batch, C channels, H height, W width, d latent dimensions of a layer, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config.schema import ModelConfig
from pipeline.model.blocks import Block, Shape, parse_stages, size

LEAK = 0.1  # of every leaky ReLU, as published
MIN_STD = 0.001  # added to every posterior standard deviation, as published


class Posterior(NamedTuple):
    """q(z_l | x) = N(mean, std²) of one layer; both (B, d) float32."""

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Returns z = mean + std · noise (the reparameterization trick); noise (B, d) ~ N(0, 1)."""
        return self.mean + self.std * noise


class ToMap(nn.Module):
    """Views (B, C·H·W) as a channels-last map (B, C, H, W), without a copy. (B, C) stays."""

    def __init__(self, shape: Shape) -> None:
        """Takes the ``shape`` of the result."""
        super().__init__()
        self.shape = shape

    def forward(self, flat: Tensor) -> Tensor:
        """Returns the view."""
        if len(self.shape) == 1:
            return flat
        channels, height, width = self.shape
        return flat.view(-1, height, width, channels).permute(0, 3, 1, 2)


def _flat(features: Tensor) -> Tensor:
    """Views a channels-last map (B, C, H, W) as (B, H·W·C), without a copy. (B, C) stays."""
    return features.flatten(1) if features.ndim == 2 else features.permute(0, 2, 3, 1).flatten(1)


class FromMap(nn.Module):
    """:func:`_flat` as a module."""

    def forward(self, features: Tensor) -> Tensor:
        """Returns the view."""
        return _flat(features)


def _norm(config: ModelConfig, shape: Shape) -> nn.Module:
    channels = shape[0]
    if config.norm == "group":
        # 16 channels a group: with fewer, PyTorch's bfloat16 channels-last kernel is 5 to 25 times slower
        return nn.GroupNorm(channels // 16 if channels % 16 == 0 else 1, channels)
    return nn.BatchNorm1d(channels) if len(shape) == 1 else nn.BatchNorm2d(channels)


def _activated(config: ModelConfig, linear: nn.Module, shape: Shape) -> nn.Sequential:
    return nn.Sequential(linear, _norm(config, shape), nn.LeakyReLU(LEAK))


def _down(config: ModelConfig, block: Block) -> nn.Sequential:
    """Builds a block of the encoder. It has no bias, because the norm after it has one."""
    if block.is_fc:
        fc = nn.Linear(size(block.inputs), block.outputs[0], bias=False)
        return nn.Sequential(FromMap(), *_activated(config, fc, block.outputs))
    return _activated(config, _conv(config, block.inputs[0], block.outputs[0], block.stride), block.outputs)


def _conv(config: ModelConfig, inputs: int, outputs: int, stride: int, bias: bool = False) -> nn.Conv2d:
    if stride == 2:
        return nn.Conv2d(inputs, outputs, 4, 2, 1, bias=bias)
    return nn.Conv2d(inputs, outputs, config.kernel_size, padding="same", bias=bias)


def _up(config: ModelConfig, block: Block, extra: int, last: bool) -> nn.Sequential:
    """Builds the mirror of an encoder block: from its output shape (plus ``extra`` joined channels) to its inputs."""
    channels = block.outputs[0] + extra
    if block.is_fc:
        linear: nn.Module = nn.Linear(channels, size(block.inputs), bias=last)
        shaped = nn.Sequential(linear, ToMap(block.inputs))
    elif block.stride == 2:
        up = LastUp if last else nn.ConvTranspose2d
        shaped = nn.Sequential(up(channels, block.inputs[0], 4, 2, 1, bias=last))
    else:
        shaped = nn.Sequential(_conv(config, channels, block.inputs[0], 1, bias=last))
    return shaped if last else nn.Sequential(*shaped, _norm(config, block.inputs), nn.LeakyReLU(LEAK))


class LastUp(nn.ConvTranspose2d):
    """A transposed convolution of 4 x 4 and stride 2, on the CPU as a convolution of 2 x 2 and a shuffle of pixels.

    The convolution gives the four pixels of each cell as channels. With few channels in the result PyTorch's transposed
    convolution takes four times as long on the CPU.
    """

    def forward(self, input: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Returns (B, C, 2 H, 2 W) of (B, C', H, W)."""
        if input.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(input)
        inputs, outputs = self.weight.shape[:2]
        # row 2 i + a of the kernel meets pixel i of a window; its results are pixels of parity a
        # channels come last, so that the gradient gets the weight's strides: DDP warns of others, with one channel too
        taps = self.weight.permute(0, 2, 3, 1).view(inputs, 2, 2, 2, 2, outputs).flip(1, 3)
        kernel = taps.permute(2, 4, 5, 0, 1, 3).reshape(4 * outputs, inputs, 2, 2)
        bias = None if self.bias is None else self.bias.repeat(4)
        cells = F.conv2d(input, kernel.contiguous(memory_format=torch.channels_last), bias, padding=1)
        batch, _, height, width = cells.shape
        rows = cells.permute(0, 2, 3, 1).reshape(batch, height, width, 2, 2 * outputs).transpose(2, 3)
        return rows.reshape(batch, 2 * height, 2 * width, outputs)[:, 1:-1, 1:-1].permute(0, 3, 1, 2)


class Encoder(nn.Module):
    """Trunk h_0 … h_{L-2} with one inference branch a layer."""

    def __init__(self, config: ModelConfig, stages: Sequence[Sequence[Block]]) -> None:
        """Builds the layers for the blocks of ``stages``, bottom first."""
        super().__init__()
        self.config = config
        depth = len(stages)
        self.trunk = nn.ModuleList(nn.Sequential(*(_down(config, b) for b in stage)) for stage in stages[:-1])
        own = range(depth) if config.separate_inference_branches else [depth - 1]
        self.branches = nn.ModuleDict(
            {str(layer): nn.Sequential(*(_down(config, b) for b in stages[layer])) for layer in own}
        )
        self.heads = nn.ModuleList(
            nn.Linear(size(stage[-1].outputs), 2 * d) for stage, d in zip(stages, config.latents, strict=True)
        )
        start = config.initial_std / config.max_std
        self.std_offset = math.log(start / (1 - start))

    def forward(self, x_BCHW: Tensor) -> list[Posterior]:
        """Returns the posterior of each layer, bottom first."""
        config = self.config
        posteriors: list[Posterior] = []
        below = x_BCHW
        top = len(self.heads) - 1
        for layer, head in enumerate(self.heads):
            above = self.trunk[layer](below) if layer < top else below
            own = str(layer) in self.branches
            features = self.branches[str(layer)](below) if own else above
            mean, raw_std = head(_flat(features)).float().chunk(2, dim=1)
            if layer == top and config.relu_top_mean:
                mean = mean.relu()
            # float32 from here on: a sigmoid or an MMD in half precision costs percents
            posteriors.append(Posterior(mean, config.max_std * torch.sigmoid(raw_std + self.std_offset) + MIN_STD))
            below = above
        return posteriors


def _contribution(config: ModelConfig, latents: int, shape: Shape, grid: int) -> nn.Sequential:
    """Maps latents (B, d) to features of ``shape``, through a coarse map of ``grid`` x ``grid`` unless that is 0."""
    full = len(shape) == 1 or grid in (0, shape[1])
    drawn = shape if full else (shape[0], grid, grid)
    linear = nn.Sequential(nn.Linear(latents, size(drawn)), ToMap(drawn), _norm(config, drawn))
    spread = [] if full else [nn.Upsample(shape[1:], mode="bilinear")]
    return nn.Sequential(*linear, nn.LeakyReLU(LEAK), *spread)


class Concatenation(torch.autograd.Function):
    """Joins two feature maps along their channels.

    The gradients are copied out of the joined one, because PyTorch's CPU kernels take up to thirty times as long on
    slices of a channels-last map.
    """

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Returns (B, C1 + C2, …)."""
        ctx.channels = first.shape[1]
        return torch.cat([first, second], dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Returns the gradients of both maps."""
        return gradient[:, : ctx.channels].clone(), gradient[:, ctx.channels :].clone()


class Decoder(nn.Module):
    """From the top layer down; the latents of each layer are added or joined on the way."""

    def __init__(self, config: ModelConfig, stages: Sequence[Sequence[Block]]) -> None:
        """Builds the layers for the blocks of ``stages``, bottom first."""
        super().__init__()
        depth = len(stages)
        shapes = [stage[-1].outputs for stage in stages]
        self.gated = config.latent_injection == "gated"
        # the contribution is normalized after the linear map: one of the things that keep a layer alive
        grids = config.contribution_grid or (0,) * depth
        self.contributions = nn.ModuleList(
            _contribution(config, d, s, grid) for d, s, grid in zip(config.latents, shapes, grids, strict=True)
        )
        self.gates = nn.ParameterList(nn.Parameter(torch.tensor(0.1)) for _ in range(depth - 1 if self.gated else 0))
        self.stages = nn.ModuleList()
        for layer, stage in enumerate(stages):
            joined = 0 if layer == depth - 1 or self.gated else shapes[layer][0]
            ups = [
                _up(config, block, joined if block is stage[-1] else 0, last=layer == 0 and i == 0)
                for i, block in enumerate(stage)
            ]
            self.stages.append(nn.Sequential(*reversed(ups)))

    def forward(self, latents: Sequence[Tensor], fade: Sequence[float] | None = None) -> Tensor:
        """Returns (B, C, H, W) before the tanh; see ``VLAE.decode``."""
        top = len(self.stages) - 1
        state: Tensor | None = None
        for layer in range(top, -1, -1):
            contribution = self.contributions[layer](latents[layer])
            if fade is not None and fade[layer] != 1:
                contribution = contribution * fade[layer]
            if state is None:
                joined = contribution
            elif self.gated:
                joined = state + self.gates[layer] * contribution
            else:
                joined = Concatenation.apply(state, contribution)
            state = self.stages[layer](joined)
        assert state is not None
        return state


class VLAE(nn.Module):
    """Encoder and decoder of L layers. Images are (B, C, H, W) in [−1, 1]."""

    def __init__(self, config: ModelConfig, image_shape: tuple[int, int, int]) -> None:
        """Builds the network for images of ``image_shape`` (C, H, W).

        Raises:
            ConfigError: When the stages do not fit such images.
        """
        super().__init__()
        stages = parse_stages(config.layers, image_shape)
        self.image_shape = image_shape
        self.latent_sizes = config.latents
        self.encoder = Encoder(config, stages)
        self.decoder = Decoder(config, stages)
        if config.weight_init_std is not None:
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                    nn.init.normal_(module.weight, 0.0, config.weight_init_std)

    def encode(self, images: Tensor) -> list[Posterior]:
        """Returns the posterior of each layer, bottom first, for images (B, C, H, W) in [−1, 1]."""
        return self.encoder(images)

    def decode(self, latents: Sequence[Tensor], fade: Sequence[float] | None = None) -> Tensor:
        """Decodes latents.

        Args:
            latents: (B, d_l) a layer, bottom first.
            fade: Factor of each layer's contribution (progressive growth); None = all 1.

        Returns:
            Images (B, C, H, W) float32 in [−1, 1].
        """
        return torch.tanh(self.decoder(latents, fade).float())
