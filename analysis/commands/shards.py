"""Images that a command takes from shards or from an export where no picture is named."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from analysis.inputs.context import EvalContext, Progress, open_context, open_shards
from analysis.inputs.encode import HELD_OUT, Encoded, held_out, held_out_count, load_split
from analysis.model.ladder import LadderModel
from analysis.model.statistics import attribute_means
from pipeline.config.schema import Config
from preprocess.errors import UsageError, UserError


def evaluation(ladder: LadderModel, source: str, data: Path | None) -> EvalContext | None:
    """The model beside shards; None for an export without --data.

    Raises:
        UserError: The shards are missing, or do not fit the model.
    """
    path = Path(source)
    checkpoint = path / "ckpt.pt" if path.is_dir() and not (path / "config.json").exists() else path
    if checkpoint.is_file():
        context, warnings = open_context(checkpoint, data)
    elif data is None:
        return None
    else:
        processing = ladder.image_processing
        height, width, channels = processing.image_shape
        state = {
            "image_shape": (channels, height, width),
            "manifest_digest": ladder.config.manifest_sha256,
            "progress": {"step": ladder.config.step, "samples": ladder.config.images_seen},
        }
        shards, warning = open_shards(state, data)
        shards.check_sizes()
        config = Config(name=ladder.name, model=ladder.config.model)
        context = EvalContext(path, ladder.vlae, config, state, shards, ladder.device)
        warnings = [warning] if warning else []
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return context


def held_out_images(ladder: LadderModel, source: str, data: Path | None, count: int) -> np.ndarray:
    """Up to ``count`` images, uint8 (n, H, W, C): those that came with the model, else the first held-out of shards.

    Raises:
        UserError: There are none.
    """
    if data is None and ladder.faces is not None:
        return ladder.faces[:count]
    try:
        context = evaluation(ladder, source, data)
    except UserError as error:
        raise UsageError(f"name image files, since there are no held-out images to take: {error}") from None
    if context is None:
        raise UsageError("name image files, or shards with --data: this export holds no held-out images")
    splits = context.shards.manifest.splits
    present = [split for split in (*HELD_OUT, "train") if split in splits and splits[split].samples]
    if not present:
        raise UsageError(f"{context.shards.folder} holds no images")
    if present[0] == "train":
        print("note: the shards hold no valid or test split; these are training images", file=sys.stderr)
    return load_split(context.shards, present[0], count)[0]


def annotated(
    ladder: LadderModel, source: str, data: Path | None, samples: int, progress: Progress
) -> tuple[EvalContext, Encoded]:
    """Held-out images of shards with their codes and annotations.

    Raises:
        UserError: There are no shards.
    """
    context = evaluation(ladder, source, data)
    if context is None:
        raise UsageError(f"the model {ladder.name} came without images and directions; name shards with --data")
    return context, held_out(context, samples, progress("held-out codes", held_out_count(context, samples)))


def with_directions(
    ladder: LadderModel, source: str, data: Path | None, samples: int, progress: Progress
) -> LadderModel:
    """The model with attribute directions: its own, or those of its shards where it has none or --data names some.

    Raises:
        UserError: It has none and its shards are not there or have no attributes.
    """
    if data is None and ladder.attributes:
        return ladder
    try:
        context, encoded = annotated(ladder, source, data, samples, progress)
    except UserError as error:
        raise UsageError(
            f"a checkpoint has no attribute directions by itself, and its shards cannot be used ({error}); "
            "`analysis export` writes a folder that has them"
        ) from None
    names = context.shards.manifest.attribute_names
    if not names:
        raise UsageError(f"{context.shards.folder} has no attributes, so there is nothing to edit by")
    directions, groups = attribute_means(encoded.means, names, encoded.annotations.attributes)
    return ladder.with_attributes(directions, groups)
