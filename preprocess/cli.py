"""The `preprocess` command: images in, shards and a manifest out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from preprocess.errors import UsageError
from preprocess.manifest import Crop
from preprocess.terminal import Terminal, clear_errors, print_summary

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    help="Turns face images (or digits) into training shards.",
    epilog="Every command that writes shards can be interrupted: the same command goes on from there.",
)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Out = Annotated[Path, typer.Option(help="Folder for the shards and manifest.json.")]
ShardSize = Annotated[int, typer.Option(min=1, help="Samples per shard.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes.", show_default="all cores")]
Limit = Annotated[int | None, typer.Option(min=1, help="Use so many images only, drawn from all splits.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the order inside each split (and of splits, where needed).")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace shards of another source or other options.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, only errors and the summary.")]


@app.command()
def faces(
    out: Annotated[Path, typer.Option(help="Folder for the tree.")] = Path("data/celeba"),
    count: Annotated[int, typer.Option(min=1, help="Number of faces.")] = 12_000,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds draw other faces.")] = 0,
    workers: Workers = None,
) -> None:
    """Draw faces whose factors are all known, as a tree like CelebA's: the built-in data set."""
    from preprocess.faces import draw_tree  # noqa: PLC0415 - keeps --help fast

    with clear_errors(), Terminal("faces") as terminal:
        terminal.start(count)
        try:
            draw_tree(out, count, seed, workers or _cores(), terminal.advance)
        except ValueError as error:
            raise UsageError(str(error)) from error
        terminal.finish()
        typer.echo(f"{count:,} faces in {out}; next: preprocess celeba --source {out} --out shards")


@app.command()
def celeba(
    out: Out = Path("shards"),
    source: Annotated[
        Path | None,
        typer.Option(help="Folder or zip of images; otherwise $CELEBA_ROOT, then data/celeba.", show_default=False),
    ] = None,
    size: Annotated[int, typer.Option(min=1, help="Pixels of the finished image's side.")] = 64,
    crop: Annotated[
        str, typer.Option(help="Side of the centre crop, or left,top,right,bottom, or square, or none.")
    ] = "148",
    codec: Annotated[str, typer.Option(help="How images are stored: npy.")] = "npy",
    shard_size: ShardSize = 2048,
    workers: Workers = None,
    limit: Limit = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Turn CelebA, or a tree like it, into shards."""
    from preprocess.build import Options, build  # noqa: PLC0415 - keeps --help fast
    from preprocess.sources.celeba import find_source, open_celeba  # noqa: PLC0415

    with clear_errors(), Terminal("celeba", quiet) as terminal:
        if codec != "npy":
            raise UsageError(f"--codec {codec} is not known: npy is")
        options = Options(size, parse_crop(crop), shard_size, workers or _cores(), seed, limit, overwrite)
        manifest = build(open_celeba(find_source(source), seed), options, out, terminal)
        terminal.finish()
        print_summary(manifest, str(out))


@app.command()
def mnist(
    out: Out = Path("shards-mnist"),
    source: Annotated[
        Path | None,
        typer.Option(help="Folder with the IDX files; otherwise $MNIST_ROOT, then data/mnist.", show_default=False),
    ] = None,
    size: Annotated[int, typer.Option(min=1, help="Pixels of the finished image's side.")] = 28,
    shard_size: ShardSize = 2048,
    workers: Workers = None,
    limit: Limit = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Turn MNIST's IDX files into shards."""
    from preprocess.build import Options, build  # noqa: PLC0415 - keeps --help fast
    from preprocess.sources.mnist import find_mnist, open_mnist  # noqa: PLC0415

    with clear_errors(), Terminal("mnist", quiet) as terminal:
        options = Options(size, Crop(kind="square"), shard_size, workers or _cores(), seed, limit, overwrite)
        manifest = build(open_mnist(find_mnist(source), seed), options, out, terminal)
        terminal.finish()
        print_summary(manifest, str(out))


@app.command()
def verify(
    shards: Annotated[Path, typer.Argument(help="Folder of shards.")],
    quiet: Quiet = False,
) -> None:
    """Read every shard again and compare it with the manifest; exit 1 names each damaged one."""
    from preprocess.manifest import Manifest  # noqa: PLC0415
    from preprocess.verify import verify as find_problems  # noqa: PLC0415 - keeps --help fast

    with clear_errors(), Terminal("verify", quiet) as terminal:
        if not shards.is_dir():
            raise UsageError(f"{shards} is not a folder of shards")
        manifest = Manifest.read(shards)
        terminal.start(manifest.samples)
        problems = find_problems(shards, terminal.advance)
        terminal.finish()
        for problem in problems:
            typer.echo(f"{shards}/{problem}", err=True)
        if problems:
            typer.echo(
                f"{len(problems)} problems; repeat the command that made {shards}: it makes damaged shards anew",
                err=True,
            )
            raise typer.Exit(1)
        files = sum(len(split.shards) for split in manifest.splits.values())
        typer.echo(f"{shards}: {files:,} shards, {manifest.samples:,} samples, all whole")


def parse_crop(text: str) -> Crop:
    """`148`, `square`, `none` or `left,top,right,bottom`.

    Raises:
        UsageError: it is none of them.
    """
    if text in {"square", "none"}:
        return Crop(kind=text)  # type: ignore[arg-type]
    parts = text.split(",")
    if all(part.isdecimal() for part in parts):
        numbers = [int(part) for part in parts]
        if len(numbers) == 1 and numbers[0] > 0:
            return Crop(kind="centre", size=numbers[0])
        if len(numbers) == 4 and numbers[0] < numbers[2] and numbers[1] < numbers[3]:
            return Crop(kind="box", box=(numbers[0], numbers[1], numbers[2], numbers[3]))
    raise UsageError(f"--crop {text} is neither a number of pixels, nor left,top,right,bottom, nor square, nor none")
