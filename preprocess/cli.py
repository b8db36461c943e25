"""The `preprocess` command: images in, shards and a manifest out."""

from __future__ import annotations

import functools
import inspect
import os
import shlex
import sys
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from preprocess.build.summary import print_summary, refuse_too_many_bad, train_command
from preprocess.errors import UsageError, UserError
from preprocess.images.crop_resize import Crop, Preset, Resample, choose_crop
from preprocess.progress import ProgressReporter, exit_on_error
from preprocess.shards.manifest import MAX_SIDE, Codec, Faces

if TYPE_CHECKING:  # the commands import what lists and reads images, so that --help stays fast
    from preprocess.sources.index import Catalogue

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    help="Turns face images (or digits) into training shards.",
    epilog="Every command that writes shards can be interrupted: the same command continues where it stopped.",
)

MAX_BAD = 0.001  # a complete copy of a real data set may lack this share; of fewer than 1,000 images, none may be bad

SourceKind = Literal["auto", "folder", "archive", "kaggle", "hq", "parquet"]
Shards = Annotated[str, typer.Argument(help="Folder of shards, or s3://, gs:// or file:// of one.")]
CropText = Annotated[
    str | None, typer.Option("--crop", help="Side of the center crop, or left,top,right,bottom, or square, or none.")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes.", show_default="all cores")]
Yes = Annotated[bool, typer.Option("--yes", help="Download what is missing without asking.")]
AlignFlag = Annotated[
    bool, typer.Option("--align", help="Find the face of each picture and bring it into CelebA's frame first.")
]
WhichFaces = Annotated[
    Faces | None, typer.Option("--faces", help="Of several faces, the largest (default) or all.", show_default=False)
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, only errors and the summary.")]


@dataclass(frozen=True)
class ShardOptions:
    """The options of every command that writes shards; `writes_shards` adds them to a command."""

    out: Annotated[
        str, typer.Option(help="Folder for the shards and manifest.json, or s3://, gs:// or file:// of one.")
    ] = "shards"
    size: Annotated[int, typer.Option(min=1, max=MAX_SIDE, help="Side of the finished images, in pixels.")] = 64
    resample: Annotated[Resample, typer.Option(help="Filter of the resize, antialiased.")] = "bilinear"
    codec: Annotated[
        Codec, typer.Option(help="npy is mapped, and fastest to train on; the others are smaller, and streamed.")
    ] = "npy"
    shard_size: Annotated[int, typer.Option(min=1, help="Samples per shard.")] = 2048
    workers: Workers = None
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use only this number of images, in proportion from all splits.")
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="Of the order inside each split (and of splits, if needed).")] = 0
    max_bad: Annotated[
        float, typer.Option(min=0, max=1, help="Exit 1, after finishing, if a larger share of the images was left out.")
    ] = MAX_BAD
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace shards of another source or other options.")
    ] = False
    scheduler: Annotated[
        str | None,
        typer.Option(help="A Dask cluster instead of local processes: tcp://host:8786, or local-cluster."),
    ] = None
    quiet: Quiet = False


def writes_shards(**defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replaces a command's parameter `options` by the fields of `ShardOptions`, for typer to read.

    Args:
        **defaults: other defaults of this command.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "options"]
        shared = [
            p.replace(kind=p.KEYWORD_ONLY, default=defaults.get(p.name, p.default))
            for p in inspect.signature(ShardOptions, eval_str=True).parameters.values()
        ]

        @functools.wraps(command)
        def with_options(**values: Any) -> None:
            options = ShardOptions(**{p.name: values.pop(p.name) for p in shared})
            command(**values, options=options)

        parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in own] + shared
        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {p.name: p.annotation for p in parameters}
        del with_options.__wrapped__  # type: ignore[attr-defined] - its signature is not the command line's
        return with_options

    return decorate


@app.command()
def faces(
    out: Annotated[Path, typer.Option(help="Folder for the images and lists.")] = Path("data/celeba"),
    count: Annotated[int, typer.Option(min=1, help="Number of faces.")] = 12_000,
    seed: Annotated[int, typer.Option(min=0, help="Each seed draws other faces.")] = 0,
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Draw faces with known factors, in CelebA's folder structure: the built-in data set."""
    from preprocess.synthetic.dataset import draw_dataset  # noqa: PLC0415

    with exit_on_error(), ProgressReporter("faces", quiet) as progress:
        progress.start(count)
        try:
            draw_dataset(out, count, seed, workers or _cores(), progress.advance)
        except BrokenProcessPool:
            raise UserError(
                "a drawing process was killed (out of memory?): the faces drawn so far are kept; "
                "run the same command again, with fewer --workers"
            ) from None
        progress.finish()
        typer.echo(f"{count:,} faces in {out}")
        typer.echo(f"next: preprocess celeba --source {shlex.quote(str(out))} --out shards")


@app.command()
@writes_shards()
def celeba(
    source: Annotated[
        Path | None,
        typer.Option(
            help="Folder, zip or tar of images, or parquet files; otherwise $CELEBA_ROOT, then data/celeba.",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[SourceKind, typer.Option(help="Kind of the source; auto recognizes it by its files.")] = "auto",
    crop: CropText = None,
    preset: Annotated[Preset | None, typer.Option(help="A published crop.")] = None,
    align: AlignFlag = False,
    faces: WhichFaces = None,
    yes: Yes = False,
    *,
    options: ShardOptions,
) -> None:
    """Turn CelebA, or a folder like it, into shards (by default the center 148 of CelebA, all of square images)."""
    from preprocess.build.alignment import choose_alignment  # noqa: PLC0415
    from preprocess.sources.celeba import DATA_FOLDER, find_source, no_source, open_celeba  # noqa: PLC0415

    with exit_on_error():
        chosen, chosen_faces = choose_crop(crop, preset), choose_alignment(align, faces)
        path = find_source(source)
        if path is None:
            from preprocess.sources.download import CELEBA_LICENSE, download_celeba  # noqa: PLC0415

            if not _agreed(yes, f"No CelebA found. Download 1.4 GB to {DATA_FOLDER}? {CELEBA_LICENSE}."):
                raise no_source()
            path = download_celeba(Path(DATA_FOLDER), partial(typer.echo, err=True))
        open_source = partial(open_celeba, path, options.seed, None if kind == "auto" else kind)
        _build("celeba", open_source, chosen, options, chosen_faces)


@app.command()
@writes_shards()
def images(
    folder: Annotated[Path, typer.Argument(help="Any folder (or zip or tar) of images; subfolders are labels.")],
    crop: CropText = None,
    align: AlignFlag = False,
    faces: WhichFaces = None,
    *,
    options: ShardOptions,
) -> None:
    """Turn any folder of images into shards (the largest central square by default; of aligned faces, CelebA's crop).

    Subfolders are labels. A train/valid/test level above them is the split; otherwise it is a seeded hash of each
    file's content.
    """
    from preprocess.build.alignment import choose_alignment  # noqa: PLC0415
    from preprocess.sources.images import open_images  # noqa: PLC0415

    with exit_on_error():
        chosen, chosen_faces = choose_crop(crop), choose_alignment(align, faces)
        _build("images", partial(open_images, folder, options.seed), chosen, options, chosen_faces)


@app.command()
@writes_shards(out="shards-mnist", size=28)
def mnist(
    source: Annotated[
        Path | None,
        typer.Option(help="Folder with the IDX files; otherwise $MNIST_ROOT, then data/mnist.", show_default=False),
    ] = None,
    yes: Yes = False,
    *,
    options: ShardOptions,
) -> None:
    """Turn MNIST's IDX files into shards."""
    from preprocess.sources.mnist import DATA_FOLDER, find_mnist, no_mnist, open_mnist  # noqa: PLC0415

    with exit_on_error():
        path = find_mnist(source)
        if path is None:
            from preprocess.sources.download import download_mnist  # noqa: PLC0415

            if not _agreed(yes, f"No MNIST found. Download 12 MB to {DATA_FOLDER}?"):
                raise no_mnist()
            path = download_mnist(Path(DATA_FOLDER), partial(typer.echo, err=True))
        _build("mnist", partial(open_mnist, path, options.seed), None, options)


@app.command()
def verify(shards: Shards, quiet: Quiet = False) -> None:
    """Read every shard again and compare it with the manifest; exit 1 names each damaged one."""
    from preprocess.shards.storage import open_shard_files  # noqa: PLC0415
    from preprocess.shards.verify import verify as find_problems  # noqa: PLC0415

    with exit_on_error(), ProgressReporter("verify", quiet) as progress:
        files = open_shard_files(shards)
        manifest = files.manifest()
        progress.start(manifest.samples)
        problems = find_problems(files, manifest, progress.advance)
        progress.finish()
        for problem in problems:
            typer.echo(f"{shards}/{problem}", err=True)
        if problems:
            remedy = f"repeat the command that made {shards}: it makes missing and damaged shards again"
            raise UserError(f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'} in {shards}; {remedy}")
        count = sum(len(split.shards) for split in manifest.splits.values())
        typer.echo(f"{shards}: {count:,} shards, {manifest.samples:,} samples, none damaged")


@app.command()
def show(
    shards: Shards,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("contact-sheet.png"),
    columns: Annotated[int, typer.Option(min=1, help="Images in a row.")] = 16,
    rows: Annotated[int, typer.Option(min=1, help="Rows for each split.")] = 4,
) -> None:
    """Draw a contact sheet of the shards, and print what is in them."""
    from preprocess.shards.atomic import replace_file  # noqa: PLC0415
    from preprocess.shards.contact_sheet import contact_sheet  # noqa: PLC0415
    from preprocess.shards.storage import open_shard_files  # noqa: PLC0415

    with exit_on_error():
        if out.suffix.lower() != ".png":
            raise UsageError(f"--out {out} must end in .png")
        files = open_shard_files(shards)
        manifest = files.manifest()
        picture = contact_sheet(files, manifest, columns, rows)
        with replace_file(out) as temporary:
            picture.save(temporary, "PNG")
        print_summary(manifest, files.name)
        typer.echo(f"contact sheet: {out}")


def _build(
    name: str,
    open_source: Callable[[], Catalogue],
    crop: Crop | None,
    options: ShardOptions,
    align: Faces | None = None,
) -> None:
    """Makes the shards, prints what is in them, and says how to train on them."""
    from preprocess.build.build import BuildOptions, build  # noqa: PLC0415
    from preprocess.build.executors import choose_executor  # noqa: PLC0415
    from preprocess.build.remote_output import open_output  # noqa: PLC0415

    make_executor = choose_executor(options.scheduler)
    output = open_output(options.out)
    chosen = BuildOptions(
        size=options.size,
        crop=crop,
        shard_size=options.shard_size,
        workers=options.workers or _cores(),
        seed=options.seed,
        limit=options.limit,
        overwrite=options.overwrite,
        codec=options.codec,
        resample=options.resample,
        align=align,
    )
    with ProgressReporter(name, options.quiet) as progress:
        manifest = build(open_source(), chosen, output, progress, make_executor)
        progress.finish()
    print_summary(manifest, options.out)
    refuse_too_many_bad(manifest, options.max_bad, options.out)
    typer.echo(f"next: {train_command(manifest, options.out)}")


def _agreed(yes: bool, question: str) -> bool:
    """Whether to download; the question is only asked on a terminal."""
    return yes or (sys.stdin.isatty() and typer.confirm(question, err=True))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
