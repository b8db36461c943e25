"""Commands that draw pictures: manifold, sample, reconstruct, interpolate, swap, arithmetic, edit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from analysis.commands.arguments import (
    PICTURES,
    Align,
    Data,
    Layer,
    Model,
    Overwrite,
    PictureOut,
    Seed,
    chosen_layers,
    existing_model,
    is_picture,
    output_file,
    output_folder,
    split_words,
)
from analysis.commands.terminal import show_progress
from preprocess.errors import UsageError

FRAMES = 24  # of an animation, one way


def _picture_or_folder(out: Path, overwrite: bool) -> Path:
    if is_picture(out):
        return output_file(out, PICTURES, overwrite)
    if out.suffix and not out.is_dir():
        raise UsageError(f"--out {out}: name a {', '.join(PICTURES)} file, or a folder without a suffix")
    return output_folder(out, overwrite)


def manifold(
    model: Model = None,
    out: Annotated[Path, typer.Option(help="A picture of all layers side by side, or a folder for one each.")] = Path(
        "manifold.png"
    ),
    layer: Layer = None,
    side: Annotated[int, typer.Option(min=1, max=64, help="Cells a side.")] = 10,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Draws each layer over [-3, 3], the others held (the paper's Figures 2 and 3)."""
    source = existing_model(model)
    out = _picture_or_folder(out, overwrite)

    from analysis.commands import drawing  # noqa: PLC0415
    from analysis.commands.inputs import Inputs  # noqa: PLC0415
    from analysis.figures.grids import manifold as draw_manifold  # noqa: PLC0415
    from analysis.figures.tiles import side_by_side  # noqa: PLC0415

    ladder = Inputs.open(source).ladder
    layers = chosen_layers(layer, len(ladder.sizes))
    sheets = [draw_manifold(ladder.vlae, number, side, seed) for number in layers]
    if is_picture(out):
        drawing.save_picture(side_by_side(sheets, [f"layer {number}" for number in layers]), out)
        return
    for number, sheet in zip(layers, sheets, strict=True):
        drawing.save_picture(sheet, out / f"manifold_layer{number}.png")


def sample(
    model: Model = None,
    out: Annotated[Path, typer.Option(help="A picture of all, or a folder for one file each.")] = Path("samples.png"),
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=100_000, help="How many.")] = 64,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Decodes codes drawn from the prior: pictures of nobody."""
    source = existing_model(model)
    out = _picture_or_folder(out, overwrite)

    from analysis.commands import drawing  # noqa: PLC0415
    from analysis.commands.inputs import Inputs  # noqa: PLC0415
    from analysis.figures.tiles import enlarged_sheet  # noqa: PLC0415

    ladder = Inputs.open(source).ladder
    if is_picture(out):
        images = ladder.sample(count, seed, "torch").cpu()
        drawing.save_picture(enlarged_sheet(images, max(1, round(count**0.5))), out)
    else:
        drawing.save_pictures(ladder.sample(count, seed), out)


def reconstruct(
    words: Annotated[list[str] | None, typer.Argument(metavar="[MODEL] [IMAGE...]", help="Default: held-out.")] = None,
    out: Annotated[Path, typer.Option(help="A picture of all, or a folder for one file each.")] = Path(
        "reconstructions.png"
    ),
    align: Align = "auto",
    data: Data = None,
    overwrite: Overwrite = False,
) -> None:
    """Shows pictures above what the model keeps of them."""
    source, files = split_words(words, range(10_000))
    out = _picture_or_folder(out, overwrite)

    from analysis.commands import drawing  # noqa: PLC0415
    from analysis.commands.inputs import Inputs  # noqa: PLC0415
    from analysis.figures.tiles import pairs_sheet  # noqa: PLC0415

    inputs = Inputs.open(source, data, files, align)
    ladder, images = inputs.ladder, inputs.images(30)
    if is_picture(out):
        decoded = ladder.reconstruct(images, "torch").cpu()
        drawing.save_picture(pairs_sheet(images, decoded, columns=min(10, len(images))), out)
    else:
        drawing.save_pictures(ladder.reconstruct(images), out, [file.stem for file in files])


def interpolate(
    words: Annotated[list[str] | None, typer.Argument(metavar="[MODEL] [A B]", help="Default: two held-out.")] = None,
    format: Annotated[
        Literal["png", "gif", "mp4"] | None, typer.Option(help="Default: the suffix of --out, else png.")
    ] = None,
    layer: Annotated[int | None, typer.Option(help="Move this layer alone (gif and mp4), 0 = bottom.")] = None,
    out: Annotated[Path | None, typer.Option(help="The file to write; default: interpolation.FORMAT.")] = None,
    frames: Annotated[int, typer.Option(min=2, max=1000, help="Of a gif or mp4, one way.")] = FRAMES,
    align: Align = "auto",
    data: Data = None,
    overwrite: Overwrite = False,
) -> None:
    """Draws the way from one picture to another: on all layers together, and on each layer alone."""
    source, files = split_words(words, (0, 2))
    kind = format or (out.suffix.lower().removeprefix(".") if out else "png")
    moving = kind in ("gif", "mp4")
    if layer is not None and not moving:
        raise UsageError("--layer needs --format gif or mp4: a picture shows each layer in a row of its own")
    out = output_file(out or Path(f"interpolation.{kind}"), (f".{kind}",) if moving else PICTURES, overwrite)

    from analysis.commands import drawing  # noqa: PLC0415
    from analysis.commands.inputs import Inputs  # noqa: PLC0415
    from analysis.figures.grids import interpolation_picture  # noqa: PLC0415

    inputs = Inputs.open(source, data, files, align)
    ladder = inputs.ladder
    layers = chosen_layers(layer, len(ladder.sizes))
    a, b = drawing.code_pair(inputs)
    if moving:
        drawing.save_animation(ladder.interpolate(a, b, frames, layers, "torch").cpu(), out)
    else:
        drawing.save_picture(interpolation_picture(ladder.vlae, a, b), out)


def swap(
    words: Annotated[list[str] | None, typer.Argument(metavar="[MODEL] [A B]", help="Default: held-out.")] = None,
    layers: Annotated[
        list[int] | None, typer.Option("--layer", help="Take these layers from B; repeatable; default: each alone.")
    ] = None,
    out: PictureOut = None,
    align: Align = "auto",
    data: Data = None,
    overwrite: Overwrite = False,
) -> None:
    """Draws A with layers of B. Without pictures: one face with each layer of eight others."""
    source, files = split_words(words, (0, 2))
    out = output_file(out or Path("swap.png"), PICTURES, overwrite)

    from analysis.commands import drawing  # noqa: PLC0415
    from analysis.commands.inputs import Inputs  # noqa: PLC0415

    inputs = Inputs.open(source, data, files, align)
    for layer in layers or ():
        chosen_layers(layer, len(inputs.ladder.sizes))
    drawing.save_picture(drawing.swap_sheet(inputs.ladder, inputs.images(9), layers), out)


def arithmetic(
    words: Annotated[list[str] | None, typer.Argument(metavar="[MODEL] [A B C]", help="Default: held-out.")] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option("--attribute", "-a", help="What A has and B lacks, if you know it; repeatable."),
    ] = None,
    out: PictureOut = None,
    align: Align = "auto",
    data: Data = None,
    overwrite: Overwrite = False,
) -> None:
    """Draws a, b, c and a - b + c of three pictures, or of held-out images (the paper's Figure 4)."""
    source, files = split_words(words, (0, 3))
    if attribute and not files:
        raise UsageError("--attribute tells what your three pictures differ in: name A B C as well")
    out = output_file(out or Path("arithmetic.png"), PICTURES, overwrite)

    from analysis.commands import drawing  # noqa: PLC0415
    from analysis.commands.inputs import Inputs  # noqa: PLC0415

    inputs = Inputs.open(source, data, files, align)
    with show_progress() as progress:
        if attribute:
            inputs = inputs.with_directions(5000, progress)
        sheet = drawing.arithmetic_sheet(inputs, attribute or (), progress)
    drawing.save_picture(sheet, out)


def edit(
    words: Annotated[list[str] | None, typer.Argument(metavar="[MODEL] [IMAGE]", help="Default: held-out.")] = None,
    attribute: Annotated[
        list[str] | None, typer.Option("--attribute", "-a", help="One to add and remove; repeatable; default: all.")
    ] = None,
    layer: Annotated[int | None, typer.Option(help="Move this layer alone, 0 = bottom.")] = None,
    out: PictureOut = None,
    align: Align = "auto",
    data: Data = None,
    samples: Annotated[int, typer.Option(min=40, help="Images that give directions, where shards do.")] = 5000,
    overwrite: Overwrite = False,
) -> None:
    """Adds attributes to a picture and removes them, in steps from -3 to 3."""
    source, files = split_words(words, (0, 1))
    out = output_file(out or Path("edit.png"), PICTURES, overwrite)

    from analysis.commands import drawing  # noqa: PLC0415
    from analysis.commands.inputs import Inputs  # noqa: PLC0415

    with show_progress() as progress:
        inputs = Inputs.open(source, data, files, align).with_directions(samples, progress)
    ladder = inputs.ladder
    names = [ladder.attribute_name(name) for name in attribute or ladder.attributes]
    if not names:
        raise UsageError("the model has no attribute directions: its images have no attributes, or each is rare")
    layers = chosen_layers(layer, len(ladder.sizes))
    drawing.save_picture(drawing.edit_sheet(ladder, inputs.images(1), names, layers), out)
