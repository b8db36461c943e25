"""The ``analysis`` command. Heavy modules are imported inside the commands, so that --help answers at once."""

from __future__ import annotations

import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.terminal import (
    FAILED,
    USAGE,
    chosen_layers,
    explained,
    give_up,
    newest_run,
    open_with_warnings,
    short_names,
    show_progress,
)

if TYPE_CHECKING:
    from analysis.inputs.context import EvalContext, Progress
    from analysis.inputs.encode import Encoded

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
    help="Shows and measures what each layer of a trained ladder has learned.",
)

QUICK_SAMPLES = 1000
SHOWN = 2000  # held-out images among which a picture's are looked for

Data = Annotated[Path | None, typer.Option(help="Folder of shards; default: the one trained on.")]
OptionalCheckpoint = Annotated[
    Path | None, typer.Option("--checkpoint", "-c", help="A ckpt.pt; default: the newest under runs/.")
]
Checkpoint = Annotated[Path | None, typer.Argument(help="A ckpt.pt; default: the newest under runs/.")]


@app.command()
def report(
    checkpoints: Annotated[list[Path], typer.Argument(metavar="CKPT...", help="One or more ckpt.pt files.")],
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report; default: report/ beside the checkpoint.")
    ] = None,
    samples: Annotated[int, typer.Option(min=40, help="At most this many held-out images.")] = 20_000,
    quick: Annotated[bool, typer.Option("--quick", help=f"At most {QUICK_SAMPLES} held-out images.")] = False,
    fid: Annotated[
        bool, typer.Option("--fid", help="Also FID and KID on Inception's features; needs the extra fid.")
    ] = False,
) -> None:
    """Measures and draws everything into one page: index.html, metrics.json and the pictures."""
    with explained(), show_progress() as progress:
        from analysis.inputs.context import open_context  # noqa: PLC0415
        from analysis.report.report import evaluate_checkpoint, headline, write_report  # noqa: PLC0415

        opened = [open_context(path, data) for path in checkpoints]
        folder = out or checkpoints[0].parent / "report"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass  # better now than after minutes of measuring
        found = []
        classifiers: dict = {}
        for (context, warnings), name in zip(opened, short_names(checkpoints), strict=True):
            for warning in warnings:
                print(f"warning: {warning}", file=sys.stderr)
            limit = min(samples, QUICK_SAMPLES) if quick else samples
            findings = evaluate_checkpoint(context, name, limit, progress, classifiers, fid)
            for note in (note for note in findings.notes if note.startswith("no FID")):
                print(f"warning: {note}", file=sys.stderr)
            findings.notes += warnings
            found.append(findings)
        page = write_report(found, folder)
        for findings in found:
            print(f"{findings.name}, step {findings.metrics['step']}")
            for line in headline(findings.metrics):
                print(f"  {line}")
        print(f"report: {page}")


def _held_out(context: EvalContext, samples: int, progress: Progress) -> Encoded:
    """Up to ``samples`` held-out images of the shards with their codes."""
    from analysis.inputs.encode import held_out, held_out_count  # noqa: PLC0415

    return held_out(context, samples, progress("held-out codes", held_out_count(context, samples)))


def _count(files: list[Path] | None, wanted: int) -> None:
    """Ends the command where another number of image files was named than it takes; none means held-out images."""
    if files and len(files) != wanted:
        give_up(f"{len(files)} image files were named: name {wanted}, or none for held-out images", USAGE)


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
    path = checkpoint or newest_run()
    with explained():
        from analysis.figures import grids as pictures  # noqa: PLC0415
        from pipeline.training.pictures import save_png  # noqa: PLC0415

        context = open_with_warnings(path, data)
        layers = chosen_layers(layer, len(context.sizes))
        sheets = [pictures.manifold(context, number, side, seed) for number in layers]
        if out.suffix.lower() == ".png":
            save_png(pictures.side_by_side(sheets, [f"layer {number}" for number in layers]), out)
            print(out)
            return
        for number, sheet in zip(layers, sheets, strict=True):
            save_png(sheet, out / f"manifold_layer{number}.png")
            print(out / f"manifold_layer{number}.png")


@app.command()
def arithmetic(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[A B C]", help="Image files; default: held-out images of the shards."),
    ] = None,
    checkpoint: OptionalCheckpoint = None,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("arithmetic.png"),
    data: Data = None,
) -> None:
    """Draws a, b, c and a - b + c of three image files, or of held-out images (the paper's Figure 4)."""
    _count(files, 3)
    path = checkpoint or newest_run()
    with explained(), show_progress() as progress:
        import torch  # noqa: PLC0415

        from analysis.figures import grids as pictures  # noqa: PLC0415
        from analysis.figures.latent_arithmetic import Row, all_rows, combine  # noqa: PLC0415
        from analysis.inputs.encode import decode  # noqa: PLC0415
        from analysis.inputs.image_files import codes_of_files  # noqa: PLC0415
        from pipeline.model.pixels import from_array  # noqa: PLC0415
        from pipeline.training.pictures import save_png  # noqa: PLC0415

        context = open_with_warnings(path, data)
        if files:
            images, codes = codes_of_files(context, files)
            shown = torch.cat([from_array(images), decode(context, combine(*codes))])
            rows = [Row("{}\n− {}\n+ {}".format(*(file.name for file in files)), shown, True)]
        else:
            rows, _ = all_rows(context, _held_out(context, SHOWN, progress), context.shards.manifest.attribute_names)
        save_png(pictures.arithmetic(rows), out)
        print(out)


@app.command()
def interpolate(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[A B]", help="Image files; default: two held-out images.")
    ] = None,
    checkpoint: OptionalCheckpoint = None,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("interpolation.png"),
    data: Data = None,
) -> None:
    """Draws the way from one image to another: on all layers together, and on each layer alone."""
    _count(files, 2)
    path = checkpoint or newest_run()
    with explained(), show_progress() as progress:
        from analysis.figures import grids as pictures  # noqa: PLC0415
        from analysis.inputs.image_files import codes_of_files  # noqa: PLC0415
        from pipeline.training.pictures import save_png  # noqa: PLC0415

        context = open_with_warnings(path, data)
        if files:
            _, codes = codes_of_files(context, files)
            sheet = pictures.interpolation_picture(context, *codes)
        else:
            sheet = pictures.interpolations(context, _held_out(context, SHOWN, progress))
        save_png(sheet, out)
        print(out)


@app.command()
def edit(
    image: Annotated[Path | None, typer.Argument(help="Image file to edit; default: a held-out image.")] = None,
    attribute: Annotated[
        list[str] | None, typer.Option("--attribute", "-a", help="One to add and remove; repeatable; default: all.")
    ] = None,
    layer: Annotated[int | None, typer.Option(help="Move this layer alone, 0 = bottom.")] = None,
    checkpoint: OptionalCheckpoint = None,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("edit.png"),
    samples: Annotated[int, typer.Option(min=40, help="Held-out images that give the directions.")] = 5000,
    data: Data = None,
) -> None:
    """Adds attributes to an image and removes them, in steps from -3 to 3."""
    path = checkpoint or newest_run()
    with explained(), show_progress() as progress:
        from analysis.figures import grids as pictures  # noqa: PLC0415
        from analysis.figures.latent_arithmetic import named_directions  # noqa: PLC0415
        from analysis.inputs.image_files import codes_of_files  # noqa: PLC0415
        from pipeline.training.pictures import save_png  # noqa: PLC0415

        context = open_with_warnings(path, data)
        moved = chosen_layers(layer, len(context.sizes))
        known = context.shards.manifest.attribute_names
        if unknown := [name for name in attribute or () if name not in known]:
            give_up(f"the shards have no attribute {unknown[0]}; they have {', '.join(known) or 'none'}", USAGE)
        code = codes_of_files(context, [image])[1][0] if image else None
        encoded = _held_out(context, samples, progress)
        code = code or [z[:1] for z in encoded.means]
        directions = named_directions(encoded, known, attribute or known, moved)
        if not directions:
            give_up(f"too few held-out images have, or lack, {', '.join(attribute or ['any attribute'])}", FAILED)
        rows = [(name.replace("_", " "), pictures.edited(context, code, by)) for name, by in directions.items()]
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
    path = checkpoint or newest_run()
    with explained(), show_progress() as progress:
        from analysis.probes.table import print_tables, probe_context  # noqa: PLC0415
        from analysis.report.report import write_json  # noqa: PLC0415

        context = open_with_warnings(path, data)
        tables = probe_context(context, samples, progress)
        print_tables(tables, len(context.sizes))
        if json_file is not None:
            write_json(tables, json_file)


class ExportFormat(StrEnum):
    """What ``analysis export`` can write; the values are ``analysis.export.Format``."""

    safetensors = "safetensors"
    onnx = "onnx"
    torch_export = "torch-export"


@app.command()
def export(
    checkpoint: Checkpoint = None,
    format: Annotated[ExportFormat, typer.Option(help="All but torch-export need the extra export.")] = (
        ExportFormat.safetensors
    ),
    out: Annotated[
        Path | None, typer.Option(help="Folder to write into; default: export-FORMAT/ beside the checkpoint.")
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option(help="A report's metrics.json for the card; default: report/ beside the checkpoint.")
    ] = None,
) -> None:
    """Writes encoder and decoder for other programs, checked against the checkpoint, with a model card."""
    path = checkpoint or newest_run()
    with explained():
        from analysis.export.export import export_model  # noqa: PLC0415
        from analysis.export.model_card import model_card, read_report, write_card  # noqa: PLC0415
        from pipeline.checkpoint.file import load_vlae  # noqa: PLC0415

        vlae, config, state = load_vlae(path)
        measured = read_report(metrics, path.parent / "report/metrics.json")
        folder = out or path.parent / f"export-{format.value}"
        differences = export_model(vlae, config, format.value, folder)
        write_card(folder, model_card(path, state, config, format.value, measured, differences))
        for part, difference in differences.items():
            print(f"{part}: outputs differ by at most {difference:.1e} from the checkpoint's")
        print(folder)
