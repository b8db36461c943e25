"""What an exported model holds besides its weights: the fields of config.json and findings.json, checked when read.

Letters in shapes: d latent dimensions of a layer, k directions, n images, H W C image.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor

from pipeline.config.schema import ModelConfig, ObjectiveConfig
from pipeline.model.vlae import VLAE
from preprocess.errors import UserError
from preprocess.shards.manifest import MAX_SIDE, Crop, Resample

FORMAT, FORMAT_VERSION = "mmd-vlae", 1
Text = Annotated[str, Field(max_length=2000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]


class PretrainedError(UserError):
    """A model that cannot be loaded; the message says which file is wrong and what to do."""


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)  # later versions may add fields


class ImageProcessing(_Plain):
    """How a photograph becomes an input of the model."""

    crop: Crop
    resample: Resample
    image_shape: tuple[Side, Side, Literal[1, 3]]
    """(H, W, C)."""
    source_size: tuple[PositiveInt, PositiveInt] | None = None
    """(H, W) of the images that the crop's pixels refer to; None where they differed in size."""


class PretrainedConfig(_Plain):
    """``config.json``."""

    format: Literal["mmd-vlae"] = FORMAT
    format_version: Literal[1] = FORMAT_VERSION
    name: Name
    step: int = 0
    images_seen: int = 0
    model: ModelConfig
    objective: ObjectiveConfig = ObjectiveConfig()
    image_processing: ImageProcessing
    value_range: tuple[float, float] = (-1.0, 1.0)
    attributes: tuple[Name, ...] = Field(default=(), max_length=500)
    """Names of the rows of ``attributes.layer{l}`` in latents.safetensors."""
    groups: tuple[Name, ...] = Field(default=(), max_length=500)
    """Names of the rows of ``groups.layer{l}``: images that share attributes, e.g. 'Male, not Smiling'."""
    faces: int = Field(default=0, ge=0, le=512)
    """Held-out images in faces.png."""
    data: Text = ""
    license: Name = "other"
    checkpoint_sha256: Text = ""
    manifest_sha256: Text = ""


class TargetFindings(_Plain):
    """How well each layer predicts one attribute, factor or label of held-out images."""

    kind: Literal["attribute", "factor", "label"]
    name: Name
    score: Literal["AUC", "R²", "accuracy"]
    scores: tuple[float | None, ...] = Field(max_length=32)
    """One for each layer, bottom first."""
    chance: float
    best_layer: int | None = None
    """The layer that is ahead of all others by more than the interval of its score; None = several share it."""


class LayerFindings(_Plain):
    """What is known of one layer."""

    effect: float | None = None
    """Change of the picture when this layer alone is drawn from the prior, over the change when all are."""
    sentence: Text = ""
    directions: tuple[Annotated[str, Field(max_length=200)], ...] = Field(default=(), max_length=4096)
    """A label for each principal direction; '' where nothing known follows it."""


class Findings(_Plain):
    """``findings.json``."""

    held_out: int = 0
    layers: tuple[LayerFindings, ...] = Field(default=(), max_length=32)
    targets: tuple[TargetFindings, ...] = Field(default=(), max_length=2000)
    attribute_directions: dict[Name, float] = Field(default_factory=dict, max_length=500)
    """AUC with which the position along an attribute's direction tells held-out images with it from those without."""
    measured: dict[Name, float] = Field(default_factory=dict, max_length=100)
    """Figures of the report for the card: l1, psnr, ssim, n."""


class LayerLatents(NamedTuple):
    """Statistics of one layer's mean codes over held-out images; float32."""

    mean: Tensor
    """(d,)"""
    std: Tensor
    """(d,)"""
    directions: Tensor
    """(k, d); one step along a row is one standard deviation. The row that changes the picture most comes first."""
    change: Tensor
    """(k,) mean |change| of pixels in [0, 1] for a step of one standard deviation."""


@dataclass(frozen=True)
class Pretrained:
    """A loaded model with everything that is known of it."""

    config: PretrainedConfig
    vlae: VLAE
    latents: list[LayerLatents] | None = None
    attributes: dict[str, list[Tensor]] = field(default_factory=dict)
    """Mean code with an attribute minus mean code without it: (1, d_l) for each layer."""
    groups: dict[str, list[Tensor]] = field(default_factory=dict)
    """Mean code of a group of images: (1, d_l) for each layer."""
    findings: Findings = field(default_factory=Findings)
    faces: np.ndarray | None = None
    """uint8 (n, H, W, C), held-out images as the model takes them."""
    warnings: tuple[str, ...] = ()
