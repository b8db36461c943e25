"""A trained ladder for a program or a notebook: encode, decode, swap, interpolate, add and subtract pictures.

Letters in shapes: n images, C channels, H W height and width, d latent dimensions of a layer, L layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from analysis.inputs.encode import decode_codes
from analysis.model import REFINE_STEPS
from analysis.model.arithmetic import Codes, add_codes
from analysis.model.images import ImageError, Output, to_batch, to_output
from analysis.model.names import match_attribute
from analysis.model.refinement import Refiner
from analysis.model.statistics import prior_latents
from pipeline.model.latents import split_layers
from pipeline.model.pretrained import download, open_pretrained, write_folder
from pipeline.model.pretrained_schema import LayerLatents, Pretrained
from preprocess.errors import UsageError

try:
    from huggingface_hub import ModelHubMixin  # pyright: ignore[reportAssignmentType]
except ImportError:  # an extra

    class ModelHubMixin:
        """Stands in where huggingface_hub is absent, and says so when it is used."""

        def push_to_hub(self, *_: object, **__: object) -> str:
            """Raises UsageError: huggingface_hub is absent."""
            raise UsageError("push_to_hub and save_pretrained need huggingface_hub: pip install 'mmd-vlae[hub]'")

        save_pretrained = push_to_hub


BATCH = 128  # images that pass the network at a time


class LadderModel(ModelHubMixin):
    """A trained variational ladder autoencoder.

    Layer 0 is the bottom one, which is nearest to the pixels. Wherever images are taken, codes from :meth:`encode` are
    taken as well. Images are paths, PIL images, NumPy uint8 arrays (h, w, C) or (n, h, w, C), tensors (C, H, W) or
    (n, C, H, W) in [−1, 1], or lists of those.

    Images are given back as ``output`` says: "pil" a list of PIL images, "numpy" uint8 (n, H, W, 3), "torch" float32
    (n, C, H, W) in [−1, 1].
    """

    _hub_mixin_config: Any = {}  # noqa: RUF012 - not None: else the mixin would copy the whole model into a config

    def __init__(self, pretrained: Pretrained, device: torch.device | str = "cpu") -> None:
        """Takes what :func:`pipeline.model.pretrained.open_pretrained` loads; use :func:`analysis.load` instead."""
        self._pretrained = pretrained
        self.vlae = pretrained.vlae.to(device)
        self.device = torch.device(device)
        self.config = pretrained.config
        """What config.json of an export holds."""
        self.name = pretrained.config.name
        """Of the recipe that it was trained by."""
        self.image_processing = pretrained.config.image_processing
        """Crop, resampling and (H, W, C) of the model's images."""
        self.sizes = self.vlae.latent_sizes
        """Latent dimensions of each layer, bottom first."""
        self.attributes = tuple(pretrained.attributes)
        """Names that :meth:`directions` and :meth:`edit` take."""
        self.faces = None if pretrained.faces is None else pretrained.faces.copy()  # torch wants to write to it
        """Held-out images that came with the model, uint8 (n, H, W, C); None where it has none."""
        self.findings = pretrained.findings
        """What probes found in the layers; empty for a plain checkpoint."""
        self.warnings = pretrained.warnings
        """Sentences about what is missing in the file that was loaded."""

    @classmethod
    def load(cls, source: str | Path, device: torch.device | str | None = None) -> Self:
        """Loads what :func:`analysis.load` does.

        Args:
            source: See there.
            device: Where it computes; None = the GPU if there is one.

        Raises:
            PretrainedError: There is no such model, or it is damaged.
            CheckpointError: The checkpoint cannot be read.
        """
        return cls(open_pretrained(source), device or ("cuda" if torch.cuda.is_available() else "cpu"))

    @property
    def groups(self) -> dict[str, Codes]:
        """Mean codes (1, d_l) of groups of training images, such as 'Male, not Smiling'."""
        return {name: self._here(codes) for name, codes in self._pretrained.groups.items()}

    @cached_property
    def latents(self) -> list[LayerLatents]:
        """Mean, standard deviation and principal directions of each layer.

        A plain checkpoint has none: they are computed from draws of the prior when they are first asked for.
        """
        return self._pretrained.latents or prior_latents(self.vlae)

    @cached_property
    def _refiner(self) -> Refiner:
        return Refiner(self.vlae, self.config.objective)

    @torch.no_grad()
    def encode(self, images: Any, align: Any = "auto", refine: int = REFINE_STEPS) -> Codes:
        """Encodes images: L tensors (n, d_l) float32 on the model's device, bottom first.

        Args:
            images: See the class. Pictures of another size than the model's are cropped as its training images were.
            align: "auto", "on" or "off": whether a face is looked for first and turned upright.
            refine: Steps from the encoder's codes toward those whose pictures are nearest to the images. 0 = the mean
                of each layer's posterior, which is several times faster.

        Raises:
            ImageError: Not images, or tensors of another size or range.
        """
        batch, _ = to_batch(images, self.image_processing, align)
        parts = []
        for part in batch.to(self.device).split(BATCH):
            codes = [q.mean for q in self.vlae.encode(part)]
            parts.append(self._refiner(part, codes, refine) if refine > 0 else codes)
        return [torch.cat(layer) for layer in zip(*parts, strict=True)]

    @torch.inference_mode()
    def decode(self, codes: Sequence[Tensor], output: Output = "pil") -> Any:
        """Decodes L tensors (n, d_l), bottom first, to images.

        Raises:
            ImageError: When the codes have other shapes, or ``output`` is none of the three.
        """
        return to_output(decode_codes(self.vlae, self._check(codes)).to(self.device), output)

    def reconstruct(self, images: Any, output: Output = "pil") -> Any:
        """Decodes the codes of images: what the model keeps of them."""
        return self.decode(self._codes(images), output)

    def prior(self, count: int = 1, seed: int = 0) -> Codes:
        """Draws codes from the prior N(0, I): L tensors (count, d_l). Equal seeds give equal draws on any device."""
        generator = torch.Generator().manual_seed(seed)
        return self._here(split_layers(torch.randn(count, sum(self.sizes), generator=generator), self.sizes))

    def sample(self, count: int = 1, seed: int = 0, output: Output = "pil") -> Any:
        """Decodes draws from the prior: images of nobody."""
        return self.decode(self.prior(count, seed), output)

    def swap(self, a: Any, b: Any, layers: int | Iterable[int], output: Output = "pil") -> Any:
        """Decodes images with some layers taken from others.

        Args:
            a: n images, or codes.
            b: n images or one, or codes.
            layers: Layers that come from ``b``.
            output: See the class.

        Raises:
            UsageError: When there is no such layer.
        """
        chosen = self._layers(layers)
        a, b = self._codes(a), self._codes(b)
        mixed = [y if layer in chosen else x for layer, (x, y) in enumerate(zip(a, b, strict=True))]
        count = max(len(z) for z in mixed)
        return self.decode([z.expand(count, -1) for z in mixed], output)

    def interpolate(
        self, a: Any, b: Any, steps: int = 9, layers: int | Iterable[int] | None = None, output: Output = "pil"
    ) -> Any:
        """Decodes codes on the line from one image to another.

        Args:
            a: One image, or codes (1, d_l).
            b: One image, or codes (1, d_l).
            steps: At least 2; the first is ``a``, the last is ``b``.
            layers: Layers that move; the others stay those of ``a``. None = all.
            output: See the class.

        Raises:
            UsageError: When ``steps`` is below 2, or there is no such layer.
        """
        if steps < 2:
            raise UsageError(f"steps={steps}: an interpolation has at least 2")
        moving = self._layers(layers)
        share = torch.linspace(0, 1, steps, device=self.device)[:, None]
        a, b = self._codes(a), self._codes(b)
        codes = [x + share * (y - x) * (i in moving) for i, (x, y) in enumerate(zip(a, b, strict=True))]
        return self.decode(codes, output)

    def arithmetic(self, a: Any, b: Any, c: Any, attribute: str | Sequence[str] = (), output: Output = "pil") -> Any:
        """Decodes a − b + c: ``c`` with what ``a`` has and ``b`` lacks.

        The bare sum of three single images has three times the variance of the prior, which the decoder has never seen.
        So each layer's sum is shortened to the length of the layer's code of ``c``, or to √d if that is longer.

        Args:
            a: n images, or codes.
            b: The same.
            c: The same.
            attribute: What ``a`` has and ``b`` lacks, one or several of :attr:`attributes`, where you know it. Only the
                layers that hold it then move, and far enough to show it.
            output: See the class.

        Raises:
            UsageError: The model knows no such attribute.
        """
        names = [attribute] if isinstance(attribute, str) else attribute
        directions = [self.directions(name) for name in names]
        return self.decode(add_codes(self._codes(a), self._codes(b), self._codes(c), directions), output)

    def directions(self, name: str) -> Codes:
        """Returns the mean code with an attribute minus the mean code without it: L tensors (1, d_l).

        Raises:
            UsageError: The model knows no such attribute.
        """
        return self._here(self._pretrained.attributes[self.attribute_name(name)])

    def edit(
        self,
        images: Any,
        attribute: str,
        strength: float | Sequence[float] = 1.0,
        layers: int | Iterable[int] | None = None,
        output: Output = "pil",
    ) -> Any:
        """Decodes images moved along the direction of an attribute.

        Args:
            images: n images, or codes.
            attribute: One of :attr:`attributes`, in any case.
            strength: 1 = the mean difference between images with and without it; negative removes it. Several strengths
                need one image and give one result each.
            layers: Layers that move; None = all.
            output: See the class.

        Raises:
            UsageError: When the model knows no such attribute or layer, or several strengths meet several images.
        """
        moving = self._layers(layers)
        steps = torch.as_tensor(strength, dtype=torch.float32, device=self.device).reshape(-1, 1)
        codes = self._codes(images)
        if len(steps) > 1 and len(codes[0]) > 1:
            raise UsageError("several strengths need one image")
        directions = enumerate(self.directions(attribute))
        return self.decode([codes[i] + steps * d * (i in moving) for i, d in directions], output)

    def with_attributes(self, directions: dict[str, Codes], groups: dict[str, Codes]) -> Self:
        """Returns a model of the same weights with other attribute directions and groups, (1, d_l) for each layer."""
        return type(self)(replace(self._pretrained, attributes=directions, groups=groups), self.device)

    def attribute_name(self, name: str) -> str:
        """Returns the attribute of this name, in any case, with '_' or ' ' between words.

        Raises:
            UsageError: There is none; the message names the nearest.
        """
        return match_attribute(name, self.attributes)

    def save(self, folder: str | Path) -> Path:
        """Writes an exported folder that :meth:`load` reads; without a card and new measurements."""
        write_folder(Path(folder), replace(self._pretrained, latents=self.latents))
        return Path(folder)

    def _save_pretrained(self, save_directory: Path) -> None:
        """Called by ``save_pretrained`` and ``push_to_hub``."""
        from analysis.export.model_card import write_card  # noqa: PLC0415

        write_card(self.save(save_directory), self._pretrained)

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, source: str | Path, *, device: torch.device | str | None = None, **options: Any
    ) -> Self:
        """Loads what :meth:`load` does.

        Args:
            source: See :meth:`load`.
            device: Where it computes; None = the GPU if there is one.
            options: Of ``huggingface_hub.snapshot_download``, such as ``revision`` and ``token``.

        Raises:
            PretrainedError: When there is no such model, or it is damaged.
            CheckpointError: When a checkpoint cannot be read.
        """
        return cls.load(download(str(source), **options) if options else source, device)

    def _codes(self, images: Any) -> Codes:
        """Codes of images; codes stay."""
        listed = isinstance(images, list | tuple) and bool(images)
        if listed and all(isinstance(z, Tensor) and z.ndim == 2 for z in images):
            return self._check(images)
        return self.encode(images)

    def _check(self, codes: Sequence[Tensor]) -> Codes:
        shapes = [tuple(z.shape) for z in codes]
        if [shape[1:] for shape in shapes] != [(size,) for size in self.sizes] or len({s[0] for s in shapes}) != 1:
            expected = ", ".join(f"(n, {size})" for size in self.sizes)
            raise ImageError(f"codes must be {len(self.sizes)} tensors {expected}; these are {shapes}")
        return self._here(codes)

    def _here(self, codes: Sequence[Tensor]) -> Codes:
        return [z.to(self.device, torch.float32) for z in codes]

    def _layers(self, layers: int | Iterable[int] | None) -> set[int]:
        depth = len(self.sizes)
        chosen = set(range(depth)) if layers is None else {layers} if isinstance(layers, int) else set(layers)
        if odd := sorted(chosen - set(range(depth))):
            raise UsageError(f"there is no layer {odd[0]}: the model has layers 0 to {depth - 1}")
        return chosen
