"""Writes an export: a folder for mmd-vlae, files for other programs, or a Hugging Face Space."""

from __future__ import annotations

import hashlib
import io
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from analysis.export.describe import describe, describe_without_shards
from analysis.export.export import ExportError, check_extras, examples, export_parts
from analysis.export.model_card import LICENSES, CardDetails, data_kind, folder_card, read_report, write_card
from analysis.export.space import write_space
from analysis.figures.grids import layer_swap_picture
from analysis.inputs.context import EvalContext, Progress, open_context
from analysis.inputs.image_files import source_size
from analysis.model.ladder import LadderModel
from pipeline.checkpoint.file import load_vlae
from pipeline.config.load import to_yaml
from pipeline.config.schema import Config
from pipeline.model.pixels import from_array
from pipeline.model.pretrained import PICTURE, open_pretrained, read_checkpoint_model, read_folder, write_folder
from pipeline.model.pretrained_schema import ImageProcessing, Pretrained
from pipeline.model.vlae import VLAE
from preprocess.errors import UserError
from preprocess.shards.atomic import write_file

TOLERANCE = {"float32": 1e-4, "float16": 0.05}
"""Largest |difference| of any output from the checkpoint's, of values in [-1, 1] and codes of about unit variance."""


@dataclass(frozen=True)
class ExportOptions:
    """What ``analysis export`` was asked for."""

    format: Literal["safetensors", "onnx", "torch-export", "space"] = "safetensors"
    precision: Literal["float32", "float16"] = "float32"
    name: str | None = None
    license: str = "other"
    data: Path | None = None
    metrics: Path | None = None
    data_license: str | None = None


def export_to(source: str, path: Path, folder: Path, options: ExportOptions, progress: Progress) -> Iterator[str]:
    """Writes an export.

    Args:
        source: The model, as it was named.
        path: Its checkpoint; for a Space also an exported folder.
        folder: Where to.
        options: What was asked for.
        progress: Told what is being done.

    Yields:
        Lines for the terminal.

    Raises:
        UserError: The model cannot be read, a library is absent, or what was written differs from the checkpoint.
    """
    if options.format in ("onnx", "torch-export"):
        check_extras(options.format)
    if not path.is_file():  # a Space of an export
        yield from _space_of_folder(source, folder)
        return
    measured, unused = read_report(options.metrics, path.parent / "report/metrics.json", _digest(path))
    if unused:
        print(f"warning: {unused}", file=sys.stderr)
    if options.format in ("onnx", "torch-export"):
        model = _renamed(read_checkpoint_model(path), options, path, measured)
        differences = export_parts(model.vlae, options.format, folder)
        write_card(folder, folder_card(model, _details(source, path, options, differences, "")))
        yield from (
            f"{part}: outputs differ by at most {d:.1e} from the checkpoint's" for part, d in differences.items()
        )
        return
    model = _renamed(_described(path, options, progress), options, path, measured)
    write_folder(folder, model, options.precision)
    difference = _difference(model.vlae, read_folder(folder).vlae)
    if not difference <= TOLERANCE[options.precision]:  # NaN differs too
        shutil.rmtree(folder)
        raise ExportError(f"the exported model differs by {difference:.1e} from the checkpoint's: nothing was kept")
    picture = write_picture(model, folder)
    details = _details(source, path, options, {"model": difference}, picture)
    write_card(folder, folder_card(model, details))
    yield f"outputs differ by at most {difference:.1e} from the checkpoint's"
    if options.format == "space":
        write_space(folder, model.config)


def _described(path: Path, options: ExportOptions, progress: Progress) -> Pretrained:
    model = read_checkpoint_model(path)
    try:
        context, warnings = open_context(path, options.data)
    except UserError as error:
        if options.data is not None:
            raise
        print(
            f"warning: {error}; the export will hold no faces, attribute directions and findings",
            file=sys.stderr,
        )
        for warning in model.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        return describe_without_shards(model, progress)
    if not context.state.get("image_processing"):  # written before checkpoints held it
        manifest = context.shards.manifest
        shape = manifest.image_shape
        processing = ImageProcessing.model_validate(
            {"crop": manifest.crop.model_dump(), "resample": manifest.resample, "image_shape": shape}
        )
        model = replace(model, config=model.config.model_copy(update={"image_processing": processing}), warnings=())
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return _with_data(describe(model, context, progress), context)


def _with_data(model: Pretrained, context: EvalContext) -> Pretrained:
    manifest = context.shards.manifest
    text = f"{LICENSES[data_kind(manifest.source.kind, manifest.factor_names)]} {manifest.source.images:,} images."
    return replace(model, config=model.config.model_copy(update={"data": text}))


def _renamed(model: Pretrained, options: ExportOptions, path: Path, measured: dict[str, float]) -> Pretrained:
    update: dict[str, Any] = {"license": options.license, "checkpoint_sha256": _digest(path)}
    if options.data_license:
        update["data"] = options.data_license
    if options.name:
        update["name"] = options.name
    processing = model.config.image_processing
    update["image_processing"] = processing.model_copy(update={"source_size": source_size(processing)})
    findings = model.findings.model_copy(update={"measured": measured})
    return replace(model, config=model.config.model_copy(update=update), findings=findings)


def _details(
    source: str, path: Path, options: ExportOptions, differences: dict[str, float], picture: str
) -> CardDetails:
    _, config, state = load_vlae(path)
    words = ["analysis", "export", Path(source).name, "--format", options.format]
    if options.precision != "float32":
        words += ["--precision", options.precision]
    return CardDetails(
        format="safetensors" if options.format == "space" else options.format,
        command=shlex.join(words),
        recipe=to_yaml(_without_folder(config)),
        recipe_name=config.name,
        weights="the moving average of the weights" if state.get("ema") else "the weights",
        differences=differences,
        picture=picture,
    )


def _without_folder(config: Config) -> Config:
    """The recipe without the folder of the shards, which says nothing to others."""
    return config.model_copy(update={"data": config.data.model_copy(update={"path": "shards/"})})


def write_picture(model: Pretrained, folder: Path) -> str:
    """Writes the layer-swap picture of the first faces for the card; returns its name, or '' without faces."""
    if model.faces is None or len(model.faces) < 3:
        return ""
    faces = from_array(model.faces[:9])
    codes = [z.cpu() for z in LadderModel(model).encode(faces)]
    picture = layer_swap_picture(model.vlae, [z[:1] for z in codes], [z[1:] for z in codes], faces, cell=80)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    write_file(folder / PICTURE, buffer.getvalue())
    return PICTURE


@torch.inference_mode()
def _difference(model: VLAE, written: VLAE) -> float:
    """Largest |difference| of means, deviations and decoded images."""
    inputs = examples(model, 3)
    pairs = list(zip(model.encode(inputs["encoder"][0]), written.encode(inputs["encoder"][0]), strict=True))
    worst = max(float((x - y).abs().max()) for one, other in pairs for x, y in zip(one, other, strict=True))
    return max(worst, float((model.decode(inputs["decoder"]) - written.decode(inputs["decoder"])).abs().max()))


def _space_of_folder(source: str, folder: Path) -> Iterator[str]:
    model = open_pretrained(source)
    if model.latents is None:
        raise ExportError(f"{source} is not an export: make one with `analysis export`")
    write_folder(folder, model, "float16")
    picture = write_picture(model, folder)
    write_card(folder, folder_card(model, CardDetails(picture=picture)))
    write_space(folder, model.config)
    yield f"a Space of {source}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
