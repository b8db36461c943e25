"""The options that every command which writes shards has."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from typer import Option

from preprocess.choices import MAX_SIDE, Codec, Faces, Preset, Resample
from preprocess.errors import UsageError

Workers = Annotated[int | None, Option(min=1, help="Processes.", show_default="all cores")]
Quiet = Annotated[bool, Option("--quiet", help="No progress, only errors and the summary.")]


@dataclass(frozen=True)
class BuildOptions:
    """The options of a build, as the command line names them."""

    crop: Annotated[
        str | None, Option(help="Side of the center crop, or left,top,right,bottom, or square, or none.")
    ] = None
    preset: Annotated[Preset | None, Option(help="A published crop; it is scaled with images of another size.")] = None
    align: Annotated[
        bool, Option("--align", help="Find the face of each picture and bring it into CelebA's frame first.")
    ] = False
    faces: Annotated[
        Faces | None, Option(help="Of several faces, the largest (default) or all.", show_default=False)
    ] = None
    out: Annotated[str, Option(help="Folder for the shards and manifest.json, or s3://, gs:// or file:// of one.")] = (
        "shards"
    )
    size: Annotated[int, Option(min=1, max=MAX_SIDE, help="Side of the finished images, in pixels.")] = 64
    resample: Annotated[Resample, Option(help="Filter of the resize, antialiased.")] = "bilinear"
    codec: Annotated[
        Codec, Option(help="npy is mapped, and fastest to train on; the others are smaller, and streamed.")
    ] = "npy"
    shard_size: Annotated[int, Option(min=1, help="Samples per shard.")] = 2048
    workers: Workers = None
    limit: Annotated[
        int | None, Option(min=1, help="Use only this number of images, in proportion from all splits.")
    ] = None
    seed: Annotated[int, Option(min=0, help="Of the order inside each split (and of splits, if needed).")] = 0
    # a complete copy of a real data set may lack this share; of fewer than 1,000 images, none may be bad
    max_bad: Annotated[
        float, Option(min=0, max=1, help="Exit 1, after finishing, if a larger share of the images was left out.")
    ] = 0.001
    overwrite: Annotated[bool, Option("--overwrite", help="Replace shards of another source or other options.")] = False
    scheduler: Annotated[
        str | None, Option(help="A Dask cluster instead of local processes: tcp://host:8786, or local-cluster.")
    ] = None
    quiet: Quiet = False

    @property
    def aligned_faces(self) -> Faces | None:
        """Which faces of each picture are brought into CelebA's frame; None where pictures stay as they are."""
        return (self.faces or "largest") if self.align else None

    def check(self) -> None:
        """Checks what is known before a source is opened.

        Raises:
            UsageError: --crop is not understood, options contradict each other, or the extra `align` is not installed.
        """
        from preprocess.images.align import check_installed  # noqa: PLC0415 - not for --help
        from preprocess.images.crop_resize import choose_crop  # noqa: PLC0415

        choose_crop(self.crop, self.preset, None)
        if self.align:
            check_installed()
        elif self.faces is not None:
            raise UsageError("--faces says which faces are aligned: give --align, too")


def with_build_options(
    without: tuple[str, ...] = (), **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replaces a command's parameter `options` by the fields of `BuildOptions`, for typer to read.

    Args:
        without: fields that this command does not offer.
        **defaults: other defaults of this command.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "options"]
        shared = [
            p.replace(default=defaults.get(p.name, p.default))
            for p in inspect.signature(BuildOptions, eval_str=True).parameters.values()
            if p.name not in without
        ]

        def with_options(**values: Any) -> None:
            options = BuildOptions(**{p.name: values.pop(p.name) for p in shared})
            command(**values, options=options)

        parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in own + shared]
        with_options.__name__, with_options.__doc__ = command.__name__, command.__doc__
        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {p.name: p.annotation for p in parameters}
        return with_options

    return decorate


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
