"""What a finished build prints: the contents of the shards, the images left out, and the next command."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from preprocess.shards.manifest import MANIFEST_NAME, LeftOut, Manifest
from preprocess.synthetic.factors import FACTOR_NAMES

_MANY_IMAGES = 50_000  # the recipe celeba64 suits a training set of this size, photos a smaller one


def train_command(manifest: Manifest, out: str) -> str:
    """Returns the command that trains on these shards, with the recipe that suits them."""
    if manifest.source.kind == "mnist":
        recipe = "mnist"
    elif manifest.factor_names == FACTOR_NAMES:  # drawn faces
        recipe = "demo"
    else:
        recipe = "celeba64" if manifest.splits["train"].samples >= _MANY_IMAGES else "photos"
    in_clone = Path("pipeline/train.py").is_file()
    trainer = "accelerate launch pipeline/train.py" if in_clone else "mmd-vlae-train"
    return f"{trainer} --recipe {recipe} --data {shlex.quote(out)}"


def print_summary(manifest: Manifest, address: str) -> None:
    """Prints a table of what is in the shards, and what was left out of them."""
    height, width, channels = manifest.image_shape
    known = f"{len(manifest.attribute_names)} attributes, {len(manifest.factor_names)} factors"
    if manifest.landmark_names:
        known += f", {len(manifest.landmark_names)} landmark coordinates"
    table = Table()
    table.add_column("split")
    for column in ("samples", "shards", "MB"):
        table.add_column(column, justify="right")
    for name, split in manifest.splits.items():
        size = sum(shard.bytes for shard in split.shards) / 1e6
        table.add_row(name, f"{split.samples:,}", f"{len(split.shards):,}", f"{size:,.1f}")
    lines = _by_reason(manifest.left_out)
    if lines:
        lines.insert(0, f"{len(manifest.left_out):,} images left out; the reasons are in {address}/{MANIFEST_NAME}")
    lines += [f"{group.files:,} files not used: {group.reason}" for group in manifest.ignored]
    console = Console(highlight=False, markup=False)
    console.print(f"{address}: {height}x{width}x{channels} {manifest.codec}, {known}", soft_wrap=True)
    console.print(table)
    for line in lines:
        console.print(line, soft_wrap=True)


def _by_reason(left_out: Sequence[LeftOut], most: int = 5) -> list[str]:
    """Counts the images for each reason, most images first."""
    reasons = Counter(left.reason for left in left_out)
    first = {left.reason: left.key for left in reversed(left_out)}
    lines = [
        f"  {first[reason]}: {reason}" if count == 1 else f"  {count:,} images, the first {first[reason]}: {reason}"
        for reason, count in reasons.most_common(most)
    ]
    return [*lines, f"  and {len(reasons) - most:,} other reasons"] if len(reasons) > most else lines
