"""The ``analysis`` command. Heavy modules are imported inside the commands, so that --help answers at once."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from analysis.subject import Subject

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
    help="Shows and measures what each layer of a trained ladder has learned.",
)

USAGE, FAILED = 2, 1
QUICK_SAMPLES = 1000

Data = Annotated[Path | None, typer.Option(help="Folder of shards; default: the one trained on.")]
OptionalCheckpoint = Annotated[
    Path | None, typer.Option("--checkpoint", "-c", help="A ckpt.pt; default: the newest under runs/.")
]
Checkpoint = Annotated[Path | None, typer.Argument(help="A ckpt.pt; default: the newest under runs/.")]


@contextmanager
def _explained() -> Iterator[None]:
    """Turns what a person can do something about into one sentence and the right exit code."""
    from analysis.subject import SubjectError  # noqa: PLC0415
    from pipeline.checkpoint import CheckpointError  # noqa: PLC0415
    from preprocess.manifest import ManifestError  # noqa: PLC0415
    from preprocess.shardset import ShardError  # noqa: PLC0415

    try:
        yield
    except (SubjectError, CheckpointError, ManifestError, ShardError) as error:
        _give_up(str(error), FAILED)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _give_up(f"{error.strerror or error}{where}", FAILED)


def _give_up(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(code)


@contextmanager
def _progress() -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """A way to say what is being done: a bar for each task on a terminal, a line for each elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:

        def line(text: str, total: int) -> Callable[[int], None]:
            print(f"{text} ({total})", file=sys.stderr, flush=True)
            return lambda _: None

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(28), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, "ETA", TimeRemainingColumn(), console=console) as bar:

        def task(text: str, total: int) -> Callable[[int], None]:
            number = bar.add_task(text, total=total)
            return lambda count: bar.advance(number, count)

        yield task


def _newest_run() -> Path:
    """The ckpt.pt under runs/ that was written last; said on the terminal."""
    found = sorted(Path("runs").glob("*/ckpt.pt"), key=lambda path: path.stat().st_mtime)
    if not found:
        _give_up("there is no runs/*/ckpt.pt here; name a checkpoint", USAGE)
    print(f"checkpoint: {found[-1]}", file=sys.stderr)
    return found[-1]


def _open(path: Path, data: Path | None) -> Subject:
    """A checkpoint with its shards; what is odd about them is said on the terminal."""
    from analysis.subject import open_subject  # noqa: PLC0415

    subject, warnings = open_subject(path, data)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return subject


def _names(paths: list[Path]) -> list[str]:
    """A short distinct name of each checkpoint: its folder, with its file where that is needed."""
    names = [path.resolve().parent.name for path in paths]
    if len(set(names)) < len(names):
        names = [f"{path.resolve().parent.name}-{path.stem}" for path in paths]
    if len(set(names)) < len(names):
        names = [f"{number}-{name}" for number, name in enumerate(names)]
    return [re.sub(r"[^A-Za-z0-9._-]", "_", name) for name in names]


@app.command()
def report(
    checkpoints: Annotated[list[Path], typer.Argument(metavar="CKPT...", help="One or more ckpt.pt files.")],
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report; default: report/ beside the checkpoint.")
    ] = None,
    samples: Annotated[int, typer.Option(min=40, help="At most this many held-out images.")] = 20_000,
    quick: Annotated[bool, typer.Option("--quick", help=f"At most {QUICK_SAMPLES} held-out images.")] = False,
) -> None:
    """Measures and draws everything into one page: index.html, metrics.json and the pictures."""
    with _explained(), _progress() as say:
        from analysis.report import headline, investigate, write_report  # noqa: PLC0415
        from analysis.subject import open_subject  # noqa: PLC0415

        opened = [open_subject(path, data) for path in checkpoints]
        found = []
        judges: dict = {}
        for (subject, warnings), name in zip(opened, _names(checkpoints), strict=True):
            for warning in warnings:
                print(f"warning: {warning}", file=sys.stderr)
            findings = investigate(subject, name, min(samples, QUICK_SAMPLES) if quick else samples, say, judges)
            findings.notes += warnings
            found.append(findings)
        page = write_report(found, out or checkpoints[0].parent / "report")
        for findings in found:
            print(f"{findings.name}, step {findings.metrics['step']}")
            for line in headline(findings.metrics):
                print(f"  {line}")
        print(f"report: {page}")


@app.command()
def manifold(
    checkpoint: Checkpoint = None,
    out: Annotated[
        Path, typer.Option(help="A .png file: all layers side by side; a folder: manifold_layer{l}.png each.")
    ] = Path(),
    layer: Annotated[int | None, typer.Option(help="Only this layer, 0 = bottom.")] = None,
    side: Annotated[int, typer.Option(min=1, max=64, help="Cells a side.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the codes that are held.")] = 0,
    data: Data = None,
) -> None:
    """Draws each layer over [-3, 3], the others held (the paper's Figures 2 and 3)."""
    path = checkpoint or _newest_run()
    with _explained():
        from analysis import pictures  # noqa: PLC0415
        from pipeline.pictures import save_png  # noqa: PLC0415

        subject = _open(path, data)
        layers = _layers(layer, len(subject.sizes))
        sheets = [pictures.manifold(subject, number, side, seed) for number in layers]
        if out.suffix.lower() == ".png":
            save_png(pictures.side_by_side(sheets, [f"layer {number}" for number in layers]), out)
            print(out)
            return
        for number, sheet in zip(layers, sheets, strict=True):
            save_png(sheet, out / f"manifold_layer{number}.png")
            print(out / f"manifold_layer{number}.png")


def _layers(only: int | None, depth: int) -> list[int]:
    """The layers asked for with --layer."""
    if only is not None and not 0 <= only < depth:
        _give_up(f"--layer {only}: the model has layers 0 to {depth - 1}", USAGE)
    return list(range(depth)) if only is None else [only]


@app.command()
def arithmetic(
    a: Annotated[Path, typer.Argument(help="Image to start from.")],
    b: Annotated[Path, typer.Argument(help="Image to subtract.")],
    c: Annotated[Path, typer.Argument(help="Image to add.")],
    checkpoint: OptionalCheckpoint = None,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("arithmetic.png"),
    data: Data = None,
) -> None:
    """Draws a, b, c and a - b + c for three image files (the paper's Figure 4)."""
    path = checkpoint or _newest_run()
    with _explained():
        import torch  # noqa: PLC0415

        from analysis import pictures  # noqa: PLC0415
        from analysis.arithmetic import Row, combine  # noqa: PLC0415
        from analysis.image_files import codes_of_files  # noqa: PLC0415
        from analysis.subject import decode  # noqa: PLC0415
        from pipeline.pictures import save_png  # noqa: PLC0415

        subject = _open(path, data)
        images, codes = codes_of_files(subject, [a, b, c])
        shown = torch.cat([pictures.images_to_tensor(images), decode(subject, combine(*codes))])
        label = f"{a.name}\n− {b.name}\n+ {c.name}"
        save_png(pictures.arithmetic([Row(label, shown, True)]), out)
        print(out)


@app.command()
def interpolate(
    a: Annotated[Path, typer.Argument(help="Image to start from.")],
    b: Annotated[Path, typer.Argument(help="Image to end at.")],
    checkpoint: OptionalCheckpoint = None,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("interpolation.png"),
    data: Data = None,
) -> None:
    """Draws the way from one image file to another: on all layers together, and on each layer alone."""
    path = checkpoint or _newest_run()
    with _explained():
        from analysis import pictures  # noqa: PLC0415
        from analysis.image_files import codes_of_files  # noqa: PLC0415
        from pipeline.pictures import save_png  # noqa: PLC0415

        subject = _open(path, data)
        _, codes = codes_of_files(subject, [a, b])
        save_png(pictures.interpolation_picture(subject, *codes), out)
        print(out)


@app.command()
def edit(
    image: Annotated[Path, typer.Argument(help="Image to edit.")],
    attribute: Annotated[
        list[str] | None, typer.Option("--attribute", "-a", help="One to add and remove; repeatable; default: all.")
    ] = None,
    layer: Annotated[int | None, typer.Option(help="Move this layer alone, 0 = bottom.")] = None,
    checkpoint: OptionalCheckpoint = None,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("edit.png"),
    samples: Annotated[int, typer.Option(min=40, help="Held-out images that give the directions.")] = 5000,
    data: Data = None,
) -> None:
    """Adds attributes to an image file and removes them, in steps from -3 to 3."""
    path = checkpoint or _newest_run()
    with _explained(), _progress() as say:
        from analysis import pictures  # noqa: PLC0415
        from analysis.arithmetic import named_directions  # noqa: PLC0415
        from analysis.image_files import codes_of_files  # noqa: PLC0415
        from analysis.subject import held_out, held_out_count  # noqa: PLC0415
        from pipeline.pictures import save_png  # noqa: PLC0415

        subject = _open(path, data)
        moved = _layers(layer, len(subject.sizes))
        known = subject.shards.manifest.attribute_names
        if unknown := [name for name in attribute or () if name not in known]:
            _give_up(f"the shards have no attribute {unknown[0]}; they have {', '.join(known) or 'none'}", USAGE)
        _, (code,) = codes_of_files(subject, [image])
        encoded = held_out(subject, samples, say("held-out codes", held_out_count(subject, samples)))
        directions = named_directions(encoded, known, attribute or known, moved)
        if not directions:
            _give_up(f"too few held-out images have, or lack, {', '.join(attribute or ['any attribute'])}", FAILED)
        rows = [(name.replace("_", " "), pictures.edited(subject, code, by)) for name, by in directions.items()]
        save_png(pictures.edit_picture(rows), out)
        print(out)


@app.command()
def probe(
    checkpoint: Checkpoint = None,
    data: Data = None,
    samples: Annotated[int, typer.Option(min=40, help="At most this many held-out images.")] = 20_000,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write all scores and intervals here.")] = None,
) -> None:
    """Prints how well each layer's code predicts each attribute, factor and label of held-out images."""
    path = checkpoint or _newest_run()
    with _explained(), _progress() as say:
        from analysis.probe_table import print_tables, probe_subject  # noqa: PLC0415
        from analysis.report import write_json  # noqa: PLC0415

        subject = _open(path, data)
        tables = probe_subject(subject, samples, say)
        print_tables(tables, len(subject.sizes))
        if json_file is not None:
            write_json(tables, json_file)
