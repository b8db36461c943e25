"""The `preprocess` command: images in, shards and a manifest out."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from preprocess.errors import UsageError, UserError
from preprocess.images.choices import PRESETS, choose_codec, choose_crop, choose_resample
from preprocess.progress import Terminal, exit_on_error, print_summary
from preprocess.shards.manifest import MANIFEST_NAME, MAX_SIDE, Crop, Manifest

if TYPE_CHECKING:  # what lists and reads images is imported by the commands, so that --help stays fast
    from preprocess.build.build import Options
    from preprocess.sources.index import Catalogue

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    help="Turns face images (or digits) into training shards.",
    epilog="Every command that writes shards can be interrupted: the same command goes on from there.",
)

Out = Annotated[str, typer.Option(help="Folder for the shards and manifest.json, or s3://, gs:// or file:// of one.")]
Shards = Annotated[str, typer.Argument(help="Folder of shards, or s3://, gs:// or file:// of one.")]
Size = Annotated[int, typer.Option(min=1, max=MAX_SIDE, help="Side of the finished images, in pixels.")]
CropText = Annotated[
    str | None, typer.Option("--crop", help="Side of the center crop, or left,top,right,bottom, or square, or none.")
]
Codec = Annotated[str, typer.Option(help="npy (mapped, fastest to train on), png, jpg or webp (smaller; streamed).")]
Resample = Annotated[str, typer.Option(help="bilinear or bicubic; both antialiased.")]
ShardSize = Annotated[int, typer.Option(min=1, help="Samples per shard.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes.", show_default="all cores")]
Limit = Annotated[int | None, typer.Option(min=1, help="Use so many images only, drawn from all splits.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the order inside each split (and of splits, where needed).")]
MaxBad = Annotated[
    float, typer.Option(min=0, max=1, help="Exit 1, after finishing, if a larger share of the images was left out.")
]
MAX_BAD = 0.001  # what a whole copy of a real data set may lack; in fewer than a thousand images one is already more
Yes = Annotated[bool, typer.Option("--yes", help="Download what is missing without asking.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace shards of another source or other options.")]
Scheduler = Annotated[
    str | None, typer.Option(help="A Dask cluster instead of local processes: tcp://host:8786, or local-cluster.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, only errors and the summary.")]


@app.command()
def faces(
    out: Annotated[Path, typer.Option(help="Folder for the tree.")] = Path("data/celeba"),
    count: Annotated[int, typer.Option(min=1, help="Number of faces.")] = 12_000,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds draw other faces.")] = 0,
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Draw faces whose factors are all known, as a tree like CelebA's: the built-in data set."""
    from preprocess.synthetic.dataset import draw_tree  # noqa: PLC0415

    with exit_on_error(), Terminal("faces", quiet) as terminal:
        terminal.start(count)
        try:
            draw_tree(out, count, seed, workers or _cores(), terminal.advance)
        except ValueError as error:
            raise UsageError(str(error)) from error
        except BrokenProcessPool:
            raise UserError(
                "a drawing process was killed (out of memory?): what is drawn is kept; "
                "run the same command again, with fewer --workers"
            ) from None
        terminal.finish()
        typer.echo(f"{count:,} faces in {out}; next: preprocess celeba --source {out} --out shards")


@app.command()
def celeba(
    out: Out = "shards",
    source: Annotated[
        Path | None,
        typer.Option(
            help="Folder or zip of images, or parquet files; otherwise $CELEBA_ROOT, then data/celeba.",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        str, typer.Option(help="What the source is taken for: auto (by looking), folder, zip, kaggle, hq or parquet.")
    ] = "auto",
    size: Size = 64,
    crop: CropText = None,
    preset: Annotated[str | None, typer.Option(help=f"A published crop: {', '.join(PRESETS)}.")] = None,
    resample: Resample = "bilinear",
    codec: Codec = "npy",
    shard_size: ShardSize = 2048,
    workers: Workers = None,
    limit: Limit = None,
    seed: Seed = 0,
    max_bad: MaxBad = MAX_BAD,
    yes: Yes = False,
    overwrite: Overwrite = False,
    scheduler: Scheduler = None,
    quiet: Quiet = False,
) -> None:
    """Turn CelebA, or a tree like it, into shards (by default the center 148 of CelebA, all of square images)."""
    from preprocess.sources.celeba import DATA_FOLDER, find_source, no_source, open_celeba  # noqa: PLC0415
    from preprocess.sources.celeba_layouts import choose_kind  # noqa: PLC0415
    from preprocess.sources.download import CELEBA_LICENSE, download_celeba  # noqa: PLC0415

    with exit_on_error():
        chosen = choose_crop(crop, preset)
        options = _options(size, chosen, resample, codec, shard_size, workers, seed, limit, overwrite)
        forced = choose_kind(kind)
        place = find_source(source)
        if place is None:
            if not _agreed(yes, f"No CelebA found. Download 1.4 GB to {DATA_FOLDER}? {CELEBA_LICENSE}."):
                raise no_source()
            place = download_celeba(Path(DATA_FOLDER), partial(typer.echo, err=True))
        _build("celeba", partial(open_celeba, place, seed, forced), options, out, max_bad, scheduler, quiet)


@app.command()
def images(
    folder: Annotated[Path, typer.Argument(help="Any folder of images; subfolders are labels.")],
    out: Out = "shards",
    size: Size = 64,
    crop: CropText = None,
    resample: Resample = "bilinear",
    codec: Codec = "npy",
    shard_size: ShardSize = 2048,
    workers: Workers = None,
    limit: Limit = None,
    seed: Seed = 0,
    max_bad: MaxBad = MAX_BAD,
    overwrite: Overwrite = False,
    scheduler: Scheduler = None,
    quiet: Quiet = False,
) -> None:
    """Turn any folder of images into shards (the largest central square by default).

    Subfolders are labels. A train/valid/test level above them is the split; otherwise it is a seeded hash of each
    file's content.
    """
    from preprocess.sources.images import open_images  # noqa: PLC0415

    with exit_on_error():
        chosen = choose_crop(crop, None)
        options = _options(size, chosen, resample, codec, shard_size, workers, seed, limit, overwrite)
        _build("images", partial(open_images, folder, seed), options, out, max_bad, scheduler, quiet)


@app.command()
def mnist(
    out: Out = "shards-mnist",
    source: Annotated[
        Path | None,
        typer.Option(help="Folder with the IDX files; otherwise $MNIST_ROOT, then data/mnist.", show_default=False),
    ] = None,
    size: Size = 28,
    resample: Resample = "bilinear",
    codec: Codec = "npy",
    shard_size: ShardSize = 2048,
    workers: Workers = None,
    limit: Limit = None,
    seed: Seed = 0,
    yes: Yes = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Turn MNIST's IDX files into shards."""
    from preprocess.sources.download import download_mnist  # noqa: PLC0415
    from preprocess.sources.mnist import DATA_FOLDER, find_mnist, no_mnist, open_mnist  # noqa: PLC0415

    with exit_on_error():
        options = _options(size, None, resample, codec, shard_size, workers, seed, limit, overwrite)
        place = find_mnist(source)
        if place is None:
            if not _agreed(yes, f"No MNIST found. Download 12 MB to {DATA_FOLDER}?"):
                raise no_mnist()
            place = download_mnist(Path(DATA_FOLDER), partial(typer.echo, err=True))
        _build("mnist", partial(open_mnist, place, seed), options, out, 1.0, None, quiet)


@app.command()
def verify(
    shards: Shards,
    quiet: Quiet = False,
) -> None:
    """Read every shard again and compare it with the manifest; exit 1 names each damaged one."""
    from preprocess.shards.storage import open_shard_files  # noqa: PLC0415
    from preprocess.shards.verify import verify as find_problems  # noqa: PLC0415

    with exit_on_error(), Terminal("verify", quiet) as terminal:
        files = open_shard_files(shards)
        manifest = files.manifest()
        terminal.start(manifest.samples)
        problems = find_problems(files, manifest, terminal.advance)
        terminal.finish()
        for problem in problems:
            typer.echo(f"{shards}/{problem}", err=True)
        if problems:
            remedy = f"repeat the command that made {shards}: it makes missing and damaged shards anew"
            raise UserError(f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'} in {shards}; {remedy}")
        count = sum(len(split.shards) for split in manifest.splits.values())
        typer.echo(f"{shards}: {count:,} shards, {manifest.samples:,} samples, all whole")


@app.command()
def show(
    shards: Shards,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("contact-sheet.png"),
    columns: Annotated[int, typer.Option(min=1, help="Images in a row.")] = 16,
    rows: Annotated[int, typer.Option(min=1, help="Rows for each split.")] = 4,
) -> None:
    """Draw a contact sheet of the shards, and print what is in them."""
    from preprocess.shards.contact_sheet import contact_sheet  # noqa: PLC0415
    from preprocess.shards.storage import open_shard_files  # noqa: PLC0415

    with exit_on_error():
        if out.suffix.lower() != ".png":
            raise UsageError(f"--out {out} must end in .png")
        files = open_shard_files(shards)
        manifest = files.manifest()
        contact_sheet(files, manifest, columns, rows).save(out)
        print_summary(manifest, files.name)
        typer.echo(f"contact sheet: {out}")


def _options(
    size: int,
    crop: Crop | None,
    resample: str,
    codec: str,
    shard_size: int,
    workers: int | None,
    seed: int,
    limit: int | None,
    overwrite: bool,
) -> Options:
    from preprocess.build.build import Options  # noqa: PLC0415

    return Options(
        size=size,
        crop=crop,
        resample=choose_resample(resample),
        codec=choose_codec(codec),
        shard_size=shard_size,
        workers=workers or _cores(),
        seed=seed,
        limit=limit,
        overwrite=overwrite,
    )


def _build(
    what: str,
    open_source: Callable[[], Catalogue],
    options: Options,
    out: str,
    max_bad: float,
    scheduler: str | None,
    quiet: bool,
) -> None:
    from preprocess.build.build import build  # noqa: PLC0415
    from preprocess.build.destination import open_destination  # noqa: PLC0415
    from preprocess.build.scheduler import choose_executor  # noqa: PLC0415

    make_executor = choose_executor(scheduler)
    folder = open_destination(out)
    with Terminal(what, quiet) as terminal:
        manifest = build(open_source(), options, folder, terminal, make_executor)
        terminal.finish()
    print_summary(manifest, out)
    _refuse_too_many_bad(manifest, max_bad, out)


def _refuse_too_many_bad(manifest: Manifest, max_bad: float, out: str) -> None:
    """Fails a run that is finished: what it made is kept, and the next command can accept it."""
    bad = len(manifest.left_out)
    total = manifest.samples + bad
    if bad > max_bad * total:
        accepting = math.ceil(bad / total * 10_000) / 10_000
        raise UserError(
            f"{bad:,} of {total:,} images ({bad / total:.2%}) {'was' if bad == 1 else 'were'} left out, more than "
            f"--max-bad {max_bad:g} allows; the shards in {out} are finished and whole: look at the reasons in "
            f"{MANIFEST_NAME} there, and to accept them repeat the command with --max-bad {accepting:g}, "
            "which makes nothing anew"
        )


def _agreed(yes: bool, question: str) -> bool:
    """Whether to download: asked on a terminal only."""
    return yes or (sys.stdin.isatty() and typer.confirm(question, err=True))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
