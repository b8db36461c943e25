"""What a command works on: a model, with the pictures that were named, its shards, or the images that came with it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from torch import Tensor

from analysis.inputs.context import EvalContext, Progress, open_context, open_shards
from analysis.inputs.encode import HELD_OUT, Encoded, held_out, load_split
from analysis.model.images import to_batch
from analysis.model.ladder import LadderModel
from analysis.model.statistics import attribute_means
from pipeline.config.schema import Config
from pipeline.model.pixels import from_array
from preprocess.errors import UsageError, UserError


def _say(kind: str, sentences: Sequence[str]) -> None:
    for sentence in sentences:
        print(f"{kind}: {sentence}", file=sys.stderr)


@dataclass(frozen=True)
class Inputs:
    """A model as it was named on the command line, and what it is to be applied to."""

    ladder: LadderModel
    source: str
    data: Path | None = None  # shards; None = those that the model was trained on
    files: Sequence[Path] = ()
    align: Any = "auto"

    @classmethod
    def open(cls, source: str, data: Path | None = None, files: Sequence[Path] = (), align: Any = "auto") -> Self:
        """Loads the model; what is missing in its file is said on the terminal."""
        ladder = LadderModel.load(source)
        _say("warning", ladder.warnings)
        return cls(ladder, source, data, files, align)

    def context(self) -> EvalContext | None:
        """The model beside shards; None for an export without --data.

        Raises:
            UserError: When there are no such shards, or they do not fit the model.
        """
        path = Path(self.source)
        checkpoint = path / "ckpt.pt" if path.is_dir() and not (path / "config.json").exists() else path
        if checkpoint.is_file():
            context, warnings = open_context(checkpoint, self.data)
        elif self.data is None:
            return None
        else:
            trained = self.ladder.config
            height, width, channels = self.ladder.image_processing.image_shape
            state = {
                "image_shape": (channels, height, width),
                "manifest_digest": trained.manifest_sha256,
                "progress": {"step": trained.step, "samples": trained.images_seen},
            }
            shards, warning = open_shards(state, self.data)
            shards.check_sizes()
            config = Config(name=self.ladder.name, model=trained.model)
            context = EvalContext(path, self.ladder.vlae, config, state, shards, self.ladder.device)
            warnings = [warning] if warning else []
        _say("warning", warnings)
        return context

    def images(self, count: int) -> Tensor:
        """(n, C, H, W) in [−1, 1]: the files that were named, else up to ``count`` held-out images.

        Raises:
            UserError: When a file cannot be taken as an image, or no files are named and there are no other images.
        """
        if not self.files:
            return from_array(self.held_out(count))
        images, notes = to_batch(list(self.files), self.ladder.image_processing, self.align)
        _say("note", notes)
        return images

    def held_out(self, count: int) -> np.ndarray:
        """Up to ``count`` images, uint8 (n, H, W, C): those that came with the model, else held-out ones of shards.

        Raises:
            UserError: When there are none, or a shard is damaged.
        """
        if self.data is None and self.ladder.faces is not None:
            return self.ladder.faces[:count]
        try:
            context = self.context()
        except UserError as error:
            raise UsageError(f"name image files, since there are no held-out images to take: {error}") from None
        if context is None:
            raise UsageError("name image files, or shards with --data: this export holds no held-out images")
        splits = context.shards.manifest.splits
        present = [split for split in (*HELD_OUT, "train") if split in splits and splits[split].samples]
        if not present:
            raise UsageError(f"{context.shards.folder} holds no images")
        if present[0] == "train":
            _say("note", ["the shards hold no valid or test split; these are training images"])
        return load_split(context.shards, present[0], count)[0]

    def annotated(self, samples: int, progress: Progress) -> tuple[EvalContext, Encoded]:
        """Up to ``samples`` held-out images of shards with their codes and annotations.

        Raises:
            UserError: When there are no shards, they do not fit the model, or they hold too few held-out images.
        """
        context = self.context()
        if context is None:
            raise UsageError(
                f"the model {self.ladder.name} came without images and directions; name shards with --data"
            )
        return context, held_out(context, samples, progress)

    def with_directions(self, samples: int, progress: Progress) -> Self:
        """The same with attribute directions: the model's, or those of shards if it has none or --data names some.

        Raises:
            UsageError: When the shards cannot be used, or have no attributes.
        """
        if self.data is None and self.ladder.attributes:
            return self
        try:
            context, encoded = self.annotated(samples, progress)
        except UserError as error:
            raise UsageError(
                f"a checkpoint has no attribute directions by itself, and its shards cannot be used ({error}); "
                "`analysis export` writes a folder that has them"
            ) from None
        names = context.shards.manifest.attribute_names
        if not names:
            raise UsageError(f"{context.shards.folder} has no attributes, so there is nothing to edit by")
        means = attribute_means(encoded.means, names, encoded.annotations.attributes)
        return replace(self, ladder=self.ladder.with_attributes(*means))
