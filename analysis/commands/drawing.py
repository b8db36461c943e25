"""What the picture commands draw: inputs found and encoded, sheets put together, files written."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from analysis.commands.inputs import Inputs
from analysis.figures.grids import edit_picture, edited, layer_swap_picture
from analysis.figures.latent_arithmetic import PAIRS, Row, all_rows, equation
from analysis.figures.motion import gif_bytes
from analysis.figures.tiles import labeled_rows
from analysis.inputs.context import Progress
from analysis.inputs.encode import decode_codes
from analysis.model.arithmetic import Codes
from analysis.model.ladder import LadderModel
from pipeline.model.pixels import from_array, to_rgb
from preprocess.errors import UsageError
from preprocess.shards.atomic import write_file

SHOWN = 2000  # held-out images among which an arithmetic's are looked for
VIDEO_SIDE = 256
FRAMES_PER_SECOND = 12


def code_pair(inputs: Inputs) -> tuple[Codes, Codes]:
    """Codes (1, d_l) of two files, or of the held-out image that differs most from the first, and the first."""
    images = inputs.images(200)
    if not inputs.files:
        joined = torch.cat(inputs.ladder.encode(images, refine=0), 1)
        images = images[[0, int((joined - joined[:1]).pow(2).sum(1).argmax())]]
    codes = [z.cpu() for z in inputs.ladder.encode(images)]
    return [z[:1] for z in codes], [z[1:2] for z in codes]


def swap_sheet(ladder: LadderModel, images: Tensor, layers: Sequence[int] | None) -> Image.Image:
    """The first image with layers of the others: each layer alone, or the ``layers`` named together."""
    codes = [z.cpu() for z in ladder.encode(images)]
    if not layers:
        return layer_swap_picture(ladder.vlae, codes, images)
    face, others = [z[:1] for z in codes], [z[1:] for z in codes]
    label = f"layers {', '.join(map(str, sorted(set(layers))))}" if len(set(layers)) > 1 else f"layer {layers[0]}"
    plain = decode_codes(ladder.vlae, codes)
    mixed = torch.cat([plain[:1], ladder.swap(face, others, layers, "torch").cpu()])
    titles = ["one face", *(f"face {i}" for i in range(1, len(images)))]
    rows = [("photographs", images), ("all layers", plain), (label, mixed)]
    return labeled_rows(rows, titles, 112, first_apart=True)


def arithmetic_sheet(inputs: Inputs, attributes: Sequence[str], progress: Progress) -> Image.Image:
    """a, b, c and a − b + c of three files, else of groups of held-out images and of single ones."""
    ladder = inputs.ladder
    if inputs.files:
        label = "{}\n− {}\n+ {}".format(*(file.name for file in inputs.files))
        rows = [_arithmetic_row(ladder, label, inputs.images(3), attributes)]
    elif inputs.data is None and ladder.faces is not None:
        faces = from_array(inputs.held_out(12))
        rows = _group_rows(ladder)
        rows += [_arithmetic_row(ladder, "three held-out images", part) for part in faces.split(3) if len(part) == 3]
    else:
        context, encoded = inputs.annotated(SHOWN, progress)
        rows, _ = all_rows(context, encoded, context.shards.manifest.attribute_names)
    return labeled_rows([(row.label, row.images) for row in rows], ("a", "b", "c", "a − b + c"), 112)


def _arithmetic_row(ladder: LadderModel, label: str, images: Tensor, attributes: Sequence[str] = ()) -> Row:
    a, b, c = images.split(1)
    result = ladder.arithmetic(a, b, c, attributes, "torch").cpu()
    return Row(label, torch.cat([images, result]), True)


def _group_rows(ladder: LadderModel) -> list[Row]:
    """One row for each attribute equation of which the model knows the three groups."""
    groups, rows = ladder.groups, []
    for s, t in PAIRS:
        kinds = [(s, t), (s, f"not {t}"), (f"not {s}", f"not {t}")]
        a, b, c = (groups.get(f"{one}, {other}") or groups.get(f"{other}, {one}") for one, other in kinds)
        if a and b and c:
            codes = [torch.cat([x, y, z, x - y + z]).cpu() for x, y, z in zip(a, b, c, strict=True)]
            rows.append(Row(f"{equation(s, t)}\nmean codes", decode_codes(ladder.vlae, codes), False))
    return rows


def edit_sheet(ladder: LadderModel, image: Tensor, names: Sequence[str], layers: Sequence[int]) -> Image.Image:
    """One image moved along each attribute's direction, on ``layers`` alone."""
    code = [z.cpu() for z in ladder.encode(image[:1])]
    rows = []
    for name in names:
        by = [d.cpu() * (layer in layers) for layer, d in enumerate(ladder.directions(name))]
        rows.append((name.replace("_", " "), edited(ladder.vlae, code, by)))
    return edit_picture(rows, image[:1])


def save_picture(picture: Image.Image, out: Path, quiet: bool = False) -> None:
    """Writes a picture in the format of its suffix, atomically, and prints its path."""
    buffer = io.BytesIO()
    kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}.get(out.suffix.lower(), "PNG")
    picture.save(buffer, kind, **({} if kind == "PNG" else {"quality": 92}))
    _write(out, buffer.getvalue(), quiet)


def save_pictures(pictures: Sequence[Image.Image], folder: Path, names: Sequence[str] = ()) -> None:
    """Writes one file for each picture into a folder, under its name or, where two are equal, its number."""
    numbered = len(set(names)) < len(pictures)
    for number, picture in enumerate(pictures):
        save_picture(picture, folder / f"{f'{number:06d}' if numbered else names[number]}.png", quiet=True)
    print(folder)


def save_animation(frames: Tensor, out: Path) -> None:
    """Writes frames (n, C, H, W) in [−1, 1], there and back, as a GIF or an MP4."""
    _write(out, gif_bytes(frames) if out.suffix.lower() == ".gif" else mp4_bytes(frames), quiet=False)


def _write(out: Path, content: bytes, quiet: bool) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    write_file(out, content)
    if not quiet:
        print(out)


def mp4_bytes(frames: Tensor) -> bytes:
    """Encodes frames (n, C, H, W) in [−1, 1], there and back, as H.264.

    Raises:
        UsageError: PyAV is absent.
    """
    try:
        import av  # noqa: PLC0415
    except ImportError:
        raise UsageError("--format mp4 needs PyAV: pip install 'mmd-vlae[video]'; --format gif works without") from None
    pixels = to_rgb(frames)
    height, width = pixels.shape[1:3]
    size = (round(width * VIDEO_SIDE / height / 2) * 2, VIDEO_SIDE)  # H.264 needs even sides
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for picture in np.concatenate([pixels, pixels[-2:0:-1]]):
            image = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
    return buffer.getvalue()
