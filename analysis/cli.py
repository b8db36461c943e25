"""The ``analysis`` command. Heavy modules are imported inside the commands, so that --help answers at once."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
    help="Shows and measures what each layer of a trained ladder has learned.",
)

USAGE, FAILED = 2, 1
QUICK_SAMPLES = 1000

Data = Annotated[Path | None, typer.Option(help="Folder of shards; default: the one trained on.")]
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
        for (subject, warnings), name in zip(opened, _names(checkpoints), strict=True):
            for warning in warnings:
                print(f"warning: {warning}", file=sys.stderr)
            findings = investigate(subject, name, min(samples, QUICK_SAMPLES) if quick else samples, say)
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
    out: Annotated[Path, typer.Option(help="Folder for manifold_layer{l}.png.")] = Path(),
    layer: Annotated[int | None, typer.Option(help="Only this layer, 0 = bottom.")] = None,
    side: Annotated[int, typer.Option(min=1, max=64, help="Cells a side.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the codes that are held.")] = 0,
    data: Data = None,
) -> None:
    """Draws one picture a layer: that layer over [-3, 3], the others held (the paper's Figures 2 and 3)."""
    path = checkpoint or _newest_run()
    with _explained():
        from analysis import pictures  # noqa: PLC0415
        from analysis.subject import open_subject  # noqa: PLC0415
        from pipeline.pictures import save_png  # noqa: PLC0415

        subject, _ = open_subject(path, data)
        if layer is not None and not 0 <= layer < len(subject.sizes):
            _give_up(f"--layer {layer}: the model has layers 0 to {len(subject.sizes) - 1}", USAGE)
        for number in range(len(subject.sizes)) if layer is None else [layer]:
            target = out / f"manifold_layer{number}.png"
            save_png(pictures.manifold(subject, number, side, seed), target)
            print(target)


@app.command()
def arithmetic(
    a: Annotated[Path, typer.Argument(help="Image to start from.")],
    b: Annotated[Path, typer.Argument(help="Image to subtract.")],
    c: Annotated[Path, typer.Argument(help="Image to add.")],
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", "-c", help="Default: the newest under runs/.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("arithmetic.png"),
    data: Data = None,
) -> None:
    """Draws a, b, c and a - b + c for three image files (the paper's Figure 4)."""
    path = checkpoint or _newest_run()
    with _explained():
        import torch  # noqa: PLC0415

        from analysis import pictures  # noqa: PLC0415
        from analysis.arithmetic import Row, combine  # noqa: PLC0415
        from analysis.image_files import read_images  # noqa: PLC0415
        from analysis.subject import decode, encode, open_subject  # noqa: PLC0415
        from pipeline.pictures import save_png  # noqa: PLC0415

        subject, _ = open_subject(path, data)
        images = read_images([a, b, c], subject.shards.manifest)
        means = [q.mean for q in encode(subject, images, lambda _: None)]
        one, two, three = ([z[row : row + 1] for z in means] for row in range(3))
        result = decode(subject, combine(one, two, three))
        shown = torch.cat([pictures.images_to_tensor(images), result])
        label = f"{a.name}\n− {b.name}\n+ {c.name}"
        save_png(pictures.arithmetic([Row(label, shown, True)]), out)
        print(out)
