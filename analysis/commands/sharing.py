"""Commands that hand a model on: export, explore."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from analysis.commands.arguments import Align, Data, Model, existing_model
from analysis.commands.terminal import show_progress
from preprocess.errors import UsageError

Format = Literal["safetensors", "onnx", "torch-export", "space"]


def export(
    model: Model = None,
    format: Annotated[
        Format,
        typer.Option(help="safetensors: a folder for `analysis` and Python; space: the same with a page to run."),
    ] = "safetensors",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write into; default: export-FORMAT/ beside the checkpoint.")
    ] = None,
    data: Data = None,
    metrics: Annotated[
        Path | None, typer.Option(help="A report's metrics.json for the card; default: report/ beside the checkpoint.")
    ] = None,
    precision: Annotated[
        Literal["float32", "float16"], typer.Option(help="Of the weights in safetensors: float16 takes half the space.")
    ] = "float32",
    name: Annotated[str | None, typer.Option(help="Of the model in its card; default: the recipe's.")] = None,
    license: Annotated[str, typer.Option(help="For the card, as Hugging Face writes it: mit, cc-by-4.0, other.")] = (
        "other"
    ),
    data_license: Annotated[
        str | None, typer.Option(help="Sentence for the card on the images' origin and terms; default: by their kind.")
    ] = None,
) -> None:
    """Writes the model for other machines and programs, checked against the checkpoint, with a model card."""
    source = existing_model(model)
    path = Path(source) / "ckpt.pt" if (Path(source) / "ckpt.pt").is_file() else Path(source)
    if not path.is_file() and format != "space":
        raise UsageError(f"--format {format} needs a ckpt.pt, and {source} is an export already")
    folder = out or (path.parent if path.is_file() else Path()) / f"export-{format}"
    if folder.is_file():
        raise UsageError(f"--out {folder} is a file; name a folder")
    if (folder / "README.md").exists():
        print(f"note: the earlier export in {folder} will be replaced", file=sys.stderr)

    from analysis.export.write import ExportOptions, export_to  # noqa: PLC0415

    options = ExportOptions(format, precision, name, license, data, metrics, data_license)
    with show_progress() as progress:
        for line in export_to(source, path, folder, options, progress):
            print(line)
    print(folder)


def explore(
    model: Model = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 = any free one.")] = 7860,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    align: Align = "auto",
) -> None:
    """Opens a page to play with the model: sliders for each layer, swaps, arithmetic, your own photograph."""
    source = existing_model(model, pretrained_first=True)

    from analysis.commands.inputs import Inputs  # noqa: PLC0415
    from analysis.explorer.serve import check_gradio, serve  # noqa: PLC0415

    check_gradio()
    serve(Inputs.open(source).ladder, host, port, browser, align)
