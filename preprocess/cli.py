"""The `preprocess` command: images in, shards and a manifest out.

The commands import what they need when they run, so that --help and a mistake in an option answer at once.
"""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from preprocess.build.options import BuildOptions, Quiet, Workers, cores, with_build_options
from preprocess.choices import MANIFEST_NAME
from preprocess.errors import UsageError, UserError
from preprocess.progress import ProgressReporter, exit_on_error

if TYPE_CHECKING:
    from preprocess.shards.manifest import Manifest
    from preprocess.sources.index import Catalogue

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    help="Turns face images (or digits) into training shards.",
    epilog="Every command that writes shards can be interrupted: the same command continues where it stopped.",
)

_MANY_IMAGES = 50_000  # the recipe celeba64 suits a training set of this size, photos a smaller one

SourceKind = Literal["auto", "folder", "archive", "kaggle", "hq", "parquet"]
Shards = Annotated[str, typer.Argument(help="Folder of shards, or s3://, gs:// or file:// of one.")]
Yes = Annotated[bool, typer.Option("--yes", help="Download what is missing without asking.")]


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
        draw_dataset(out, count, seed, workers or cores(), progress.advance)
        progress.finish()
        typer.echo(f"{count:,} faces in {out}")
        typer.echo(f"next: preprocess celeba --source {shlex.quote(str(out))} --out shards")


@app.command()
@with_build_options()
def celeba(
    source: Annotated[
        Path | None,
        typer.Option(
            help="Folder, zip or tar of images, or parquet files; otherwise $CELEBA_ROOT, then data/celeba.",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[SourceKind, typer.Option(help="Kind of the source; auto recognizes it by its files.")] = "auto",
    yes: Yes = False,
    *,
    options: BuildOptions,
) -> None:
    """Turn CelebA, or a folder like it, into shards (by default the center 148 of CelebA, all of square images)."""
    with exit_on_error():
        _check_source(source)
        from preprocess.sources.celeba import DATA_FOLDER, find_source, no_source, open_celeba  # noqa: PLC0415
        from preprocess.sources.download import CELEBA_LICENSE, download_celeba  # noqa: PLC0415

        question = f"No CelebA found. Download 1.4 GB to {DATA_FOLDER}? {CELEBA_LICENSE}."
        path = find_source(source) or _downloaded(download_celeba, DATA_FOLDER, yes, question, no_source())
        _build("celeba", partial(open_celeba, path, options.seed, None if kind == "auto" else kind), options)


@app.command()
@with_build_options(without=("preset",))
def images(
    folder: Annotated[Path, typer.Argument(help="Any folder (or zip or tar) of images; subfolders are labels.")],
    *,
    options: BuildOptions,
) -> None:
    """Turn any folder of images into shards (the largest central square by default; of aligned faces, CelebA's crop).

    Subfolders are labels. A train/valid/test level above them is the split; otherwise it is a seeded hash of each
    file's content.
    """
    from preprocess.sources.images import open_images  # noqa: PLC0415

    with exit_on_error():
        _build("images", partial(open_images, folder, options.seed), options)


@app.command()
@with_build_options(without=("crop", "preset", "align", "faces"), out="shards-mnist", size=28)
def mnist(
    source: Annotated[
        Path | None,
        typer.Option(help="Folder with the IDX files; otherwise $MNIST_ROOT, then data/mnist.", show_default=False),
    ] = None,
    yes: Yes = False,
    *,
    options: BuildOptions,
) -> None:
    """Turn MNIST's IDX files into shards."""
    with exit_on_error():
        _check_source(source)
        from preprocess.sources.download import download_mnist  # noqa: PLC0415
        from preprocess.sources.mnist import DATA_FOLDER, find_mnist, no_mnist, open_mnist  # noqa: PLC0415

        question = f"No MNIST found. Download 12 MB to {DATA_FOLDER}?"
        path = find_mnist(source) or _downloaded(download_mnist, DATA_FOLDER, yes, question, no_mnist())
        _build("mnist", partial(open_mnist, path, options.seed), options)


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
        _print_summary(manifest, files.name)
        typer.echo(f"contact sheet: {out}")


def _build(name: str, open_source: Callable[[], Catalogue], options: BuildOptions) -> None:
    """Makes the shards, prints what is in them, and says how to train on them."""
    from preprocess.build.build import build, refuse_too_many_bad  # noqa: PLC0415
    from preprocess.build.executors import choose_executor  # noqa: PLC0415
    from preprocess.build.output import Output  # noqa: PLC0415

    options.check()
    open_executor = choose_executor(options.scheduler)
    output = Output(options.out)
    with ProgressReporter(name, options.quiet) as progress:
        manifest = build(open_source(), options, output, progress, open_executor)
        progress.finish()
    _print_summary(manifest, options.out)
    refuse_too_many_bad(manifest, options.max_bad, options.out)
    typer.echo(f"next: {train_command(manifest, options.out)}")


def _check_source(source: Path | None) -> None:
    """Refuses a source that does not exist, before NumPy and Pillow are loaded."""
    from preprocess.containers.file_kinds import check_source  # noqa: PLC0415

    if source is not None:
        check_source(source, "--source ")


def _downloaded(
    download: Callable[[Path, Callable[[str], None]], Path], folder: str, yes: bool, question: str, refused: UsageError
) -> Path:
    """Downloads a data set if the user agrees; the question is only asked on a terminal."""
    if yes or (sys.stdin.isatty() and typer.confirm(question, err=True)):
        return download(Path(folder), partial(typer.echo, err=True))
    raise refused


def train_command(manifest: Manifest, out: str) -> str:
    """Returns the command that trains on these shards, with the recipe that suits them."""
    from preprocess.synthetic.factors import FACTOR_NAMES  # noqa: PLC0415

    if manifest.source.kind == "mnist":
        recipe = "mnist"
    elif manifest.factor_names == FACTOR_NAMES:  # drawn faces
        recipe = "demo"
    else:
        recipe = "celeba64" if manifest.splits["train"].samples >= _MANY_IMAGES else "photos"
    in_clone = Path("pipeline/train.py").is_file()
    trainer = "accelerate launch pipeline/train.py" if in_clone else "mmd-vlae-train"
    return f"{trainer} --recipe {recipe} --data {shlex.quote(out)}"


def _print_summary(manifest: Manifest, address: str) -> None:
    """Prints a table of what is in the shards, and what was left out of them."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    height, width, channels = manifest.image_shape
    known = f"{len(manifest.attribute_names)} attributes, {len(manifest.factor_names)} factors"
    if manifest.landmark_names:
        known += f", {len(manifest.landmark_names)} landmark coordinates"
    table = Table("split")
    for column in ("samples", "shards", "MB"):
        table.add_column(column, justify="right")
    for name, split in manifest.splits.items():
        size = sum(shard.bytes for shard in split.shards) / 1e6
        table.add_row(name, f"{split.samples:,}", f"{len(split.shards):,}", f"{size:,.1f}")
    console = Console(highlight=False, markup=False)
    console.print(f"{address}: {height}x{width}x{channels} {manifest.codec}, {known}", soft_wrap=True)
    console.print(table)
    for line in _not_used(manifest, address):
        console.print(line, soft_wrap=True)


def _not_used(manifest: Manifest, address: str, most: int = 5) -> list[str]:
    """Counts the images that were left out and the files that are not images, for each reason, most of them first."""
    reasons = Counter(left.reason for left in manifest.left_out)
    first = {left.reason: left.key for left in reversed(manifest.left_out)}
    lines = [
        f"  {first[reason]}: {reason}" if count == 1 else f"  {count:,} images, the first {first[reason]}: {reason}"
        for reason, count in reasons.most_common(most)
    ]
    if lines:
        lines.insert(0, f"{len(manifest.left_out):,} images left out; the reasons are in {address}/{MANIFEST_NAME}")
    if len(reasons) > most:
        lines.append(f"  and {len(reasons) - most:,} other reasons")
    return lines + [f"{group.files:,} files not used: {group.reason}" for group in manifest.ignored]
