"""Writes an export: a folder for mmd-vlae, files for other programs, or a Hugging Face Space."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from analysis.export.describe import describe, describe_without_shards, layer_findings, target_findings
from analysis.export.export import ExportError, check_extras, examples, export_parts
from analysis.export.model_card import CardDetails, data_terms, training_command, write_card
from analysis.export.space import write_app
from analysis.inputs.context import Progress, open_context
from analysis.inputs.image_files import source_size
from analysis.report.report import sha256
from pipeline.checkpoint.file import load_vlae
from pipeline.config.load import to_yaml
from pipeline.model.pretrained import open_pretrained, read_checkpoint_model, read_folder, write_folder
from pipeline.model.pretrained_schema import ImageProcessing, Pretrained
from pipeline.model.vlae import VLAE
from preprocess.errors import UserError

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
    """Writes an export of a checkpoint.

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
    check_extras(options.format)
    if not path.is_file():  # a Space of an export
        model = open_pretrained(source)
        if model.latents is None:
            raise ExportError(f"{source} is not an export: make one with `analysis export`")
        write_folder(folder, model, "float16")
        write_card(folder, model, CardDetails(format="space"))
        write_app(folder)
        yield f"a Space of {source}"
        return
    digest = sha256(path)
    report = read_report(options.metrics, path.parent / "report/metrics.json", digest)
    model = read_checkpoint_model(path)
    if options.format == "onnx" or options.format == "torch-export":  # noqa: PLR1714 (it narrows the type)
        model = _renamed(model, options, digest, report)
        differences = export_parts(model.vlae, options.format, folder)
        for part, difference in differences.items():
            yield f"{part}: outputs differ by at most {difference:.1e} from the checkpoint's"
    else:
        model = _renamed(_described(model, path, options, report, progress), options, digest, report)
        write_folder(folder, model, options.precision)
        differences = {"model": _difference(model.vlae, read_folder(folder).vlae)}
        if not differences["model"] <= TOLERANCE[options.precision]:  # NaN differs too
            shutil.rmtree(folder)
            raise ExportError(
                f"the exported model differs by {differences['model']:.1e} from the checkpoint's: nothing was kept"
            )
        yield f"outputs differ by at most {differences['model']:.1e} from the checkpoint's"
    write_card(folder, model, _details(path, options, differences))
    if options.format == "space":
        write_app(folder)


class Report(NamedTuple):
    """What a report on the checkpoint has measured."""

    measured: dict[str, float]
    """``l1``, ``psnr``, ``ssim``, ``n`` of held-out images; {} without a report."""
    layers: Mapping[str, Any] | None
    """Its metrics where they hold effects and probes of the layers."""


def read_report(named: Path | None, default: Path, digest: str) -> Report:
    """Reads what a report on the checkpoint has measured.

    A report on another checkpoint is not used, with a warning.

    Args:
        named: A metrics.json that was asked for.
        default: The one to look for otherwise; it may be absent.
        digest: SHA-256 of the checkpoint.

    Raises:
        ExportError: The named file cannot be read, or is not a report's.
    """
    path = named or default
    nothing = Report({}, None)
    if named is None and not path.exists():
        return nothing
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        valid = content["reconstruction"]["valid"]
        measured = {key: float(valid[key]) for key in ("n", "l1", "psnr", "ssim") if valid.get(key) is not None}
        if (content.get("provenance") or {}).get("checkpoint_sha256") != digest:
            _warn(f"{path} is a report on another checkpoint; its figures are not used")
            return nothing
        if "layers" not in content:
            return Report(measured, None)
        layer_findings(content, [()] * len(content["layers"]))  # fails here rather than after minutes
        target_findings(content)
        return Report(measured, content)
    except OSError as error:
        raise ExportError(f"cannot read the metrics {path}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        if named is None:
            return nothing
        raise ExportError(
            f"{path} is not the metrics.json of a report on one checkpoint; make one with `analysis report`"
        ) from None


def _described(model: Pretrained, path: Path, options: ExportOptions, report: Report, progress: Progress) -> Pretrained:
    """Adds what the checkpoint's shards tell, where they are there."""
    try:
        context, warnings = open_context(path, options.data)
    except UserError as error:
        if options.data is not None:
            raise
        _warn(f"{error}; the export will hold no faces, attribute directions and findings", *model.warnings)
        return describe_without_shards(model, progress)
    _warn(*warnings)
    manifest = context.shards.manifest
    terms = f"{data_terms(manifest.source.kind, manifest.factor_names)} {manifest.source.images:,} images."
    update: dict[str, Any] = {"data": terms}
    if not context.state.get("image_processing"):  # written before checkpoints held it
        update["image_processing"] = ImageProcessing(
            crop=manifest.crop, resample=manifest.resample, image_shape=model.config.image_processing.image_shape
        )
    model = replace(model, config=model.config.model_copy(update=update))
    return describe(model, context, report.layers, progress)


def _renamed(model: Pretrained, options: ExportOptions, digest: str, report: Report) -> Pretrained:
    config = model.config
    processing = config.image_processing.model_copy(update={"source_size": source_size(config.image_processing)})
    update = {
        "name": options.name or config.name,
        "license": options.license,
        "data": options.data_license or config.data,
        "image_processing": processing,
        "checkpoint_sha256": digest,
    }
    findings = model.findings.model_copy(update={"measured": report.measured})
    return replace(model, config=config.model_copy(update=update), findings=findings)


def _details(path: Path, options: ExportOptions, differences: dict[str, float]) -> CardDetails:
    _, config, state = load_vlae(path)
    config = config.model_copy(update={"data": config.data.model_copy(update={"path": "shards/"})})  # says nothing here
    words = ["analysis", "export", path.name, "--format", options.format]
    given = {
        "--precision": options.precision if options.precision != "float32" else None,
        "--name": options.name,
        "--license": options.license if options.license != "other" else None,
        "--data": "shards/" if options.data else None,
        "--metrics": options.metrics.name if options.metrics else None,
        "--data-license": options.data_license,
    }
    words += [word for option, value in given.items() if value is not None for word in (option, value)]
    return CardDetails(
        format=options.format,
        commands=(training_command(config), shlex.join(words)),
        recipe=to_yaml(config),
        weights="the moving average of the weights" if state.get("ema") else "the weights",
        differences=differences,
    )


@torch.inference_mode()
def _difference(model: VLAE, written: VLAE) -> float:
    """Largest |difference| of means, deviations and decoded images."""
    inputs = examples(model, 3)
    outputs = [
        [*(value for q in vlae.encode(inputs["encoder"][0]) for value in q), vlae.decode(inputs["decoder"])]
        for vlae in (model, written)
    ]
    return max(float((x - y).abs().max()) for x, y in zip(*outputs, strict=True))


def _warn(*sentences: str) -> None:
    for sentence in sentences:
        print(f"warning: {sentence}", file=sys.stderr)
