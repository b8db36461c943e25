"""The README.md beside an exported model: what it is, how to use it, what it was trained on, how well it does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.export.export import SUFFIX, ExportError, input_names, output_names
from pipeline.model.pretrained_schema import Findings, ImageProcessing, Pretrained
from preprocess.shards.atomic import write_file
from preprocess.synthetic.factors import FACTOR_NAMES

LICENSES = {
    "drawn faces": "drawn by mmd-vlae's `preprocess faces`: no person is shown, and the pictures are free of rights.",
    "celeba": (
        "images in CelebA's format. CelebA itself is for non-commercial research only, and models trained on it come "
        "under the same terms (Liu et al. 2015, mmlab.ie.cuhk.edu.hk/projects/CelebA.html)."
    ),
    "mnist": "MNIST (LeCun, Cortes and Burges), available under CC BY-SA 3.0.",
    "images": "a folder of images: **state their terms here before you pass this model on.**",
    "unknown": "not known, since the shards were not there at export: **state it here before you pass this model on.**",
}
CITATION = """```bibtex
@article{xu2018generate,
  title   = {Generate Faces Using Ladder Variational Autoencoder with Maximum Mean Discrepancy ({MMD})},
  author  = {Xu, Haoji},
  journal = {Intelligent Information Management},
  year    = {2018},
  doi     = {10.4236/iim.2018.104009}
}
@inproceedings{zhao2017learning,
  title     = {Learning Hierarchical Features from Deep Generative Models},
  author    = {Zhao, Shengjia and Song, Jiaming and Ermon, Stefano},
  booktitle = {International Conference on Machine Learning},
  year      = {2017}
}
```"""


@dataclass(frozen=True)
class CardDetails:
    """What a card says besides what is in the model itself."""

    format: str = "safetensors"
    command: str = ""
    """The command that wrote the export."""
    recipe: str = ""
    """YAML of the recipe; '' where it is not known."""
    recipe_name: str = ""
    weights: str = "the weights"
    differences: Mapping[str, float] | None = None
    """Largest |difference| of outputs read back, for each part that was written."""
    picture: str = ""
    """File name of a picture beside the card."""


def data_kind(source: str, factor_names: Sequence[str]) -> str:
    """A key of LICENSES for a manifest's source."""
    if tuple(factor_names) == tuple(FACTOR_NAMES):
        return "drawn faces"
    kind = source.split(maxsplit=1)[0].lower() if source else "unknown"
    return next((known for known in LICENSES if kind.startswith(known)), "images")


def folder_card(model: Pretrained, details: CardDetails | None = None) -> str:
    """Writes the card of an export as Markdown with YAML front matter.

    Args:
        model: With its findings.
        details: Default: those of a folder that was saved from Python.
    """
    details = details or CardDetails()
    config = model.config
    sizes = ", ".join(map(str, config.model.latents))
    lines = [
        *_front_matter(config.license),
        f"# {config.name}: an MMD variational ladder autoencoder",
        "",
        f"{len(config.model.latents)} layers of {sizes} latents, {_parameters(model)} parameters. These are",
        f"{details.weights} after step {config.step:,} ({config.images_seen:,} images seen).",
        *_differences(details),
        "",
        *([f"![One face, and what each layer changes]({details.picture})", ""] if details.picture else []),
        "## Use",
        *_usage(details.format, config.image_processing, config.model.latents),
        "",
        "## Images",
        *image_lines(config.image_processing),
        "",
        *_layer_lines(model.findings),
        "## Measured",
        *_measured_lines(model.findings),
        "",
        "## Data",
        f"- Origin and terms: {config.data or LICENSES['unknown']}",
        *([f"- SHA-256 of the shards' manifest: `{config.manifest_sha256}`"] if config.manifest_sha256 else []),
        "",
        "## Limits",
        "Images must be cropped and resized as the training images were. The model cannot draw what its data lack, and",
        "attributes are those of the data's annotators.",
        "",
        "## Made by",
        *_made_lines(details.recipe_name or config.name, details),
        *([f"SHA-256 of the checkpoint: `{config.checkpoint_sha256}`"] if config.checkpoint_sha256 else []),
        "",
        *(["### Recipe", "```yaml", details.recipe.rstrip(), "```", ""] if details.recipe else []),
        "## How to cite",
        CITATION,
        "",
    ]
    return "\n".join(lines)


def _front_matter(license: str) -> Iterator[str]:
    yield "---"
    yield f"license: {json.dumps(license)}"
    yield "library_name: mmd-vlae"
    yield "pipeline_tag: unconditional-image-generation"
    yield "tags: [vae, variational-ladder-autoencoder, mmd, disentanglement, faces]"
    yield "---"


def _parameters(model: Pretrained) -> str:
    return f"{sum(parameter.numel() for parameter in model.vlae.parameters()):,}"


def _differences(details: CardDetails) -> Iterator[str]:
    if details.differences:
        worst = max(details.differences.values())
        yield f"Read back, the outputs differ by at most {worst:.0e} from the checkpoint's."


def image_lines(processing: ImageProcessing) -> Iterator[str]:
    """The crop in numbers, the size and the range of values."""
    height, width, channels = processing.image_shape
    crop = {
        "center": f"the central square of {processing.crop.size} pixels",
        "square": "the largest central square",
        "box": f"the box (left, top, right, bottom) = {processing.crop.box}",
        "none": "the whole image",
    }[processing.crop.kind]
    source = f" of {processing.source_size[1]}x{processing.source_size[0]} pixels" if processing.source_size else ""
    yield f"- Crop: {crop}{' of images' + source if source else ''}"
    colors = "3 channels (RGB)" if channels == 3 else "1 channel (gray)"
    yield f"- Size: {width}x{height} pixels, {colors}, {processing.resample}, antialiased"
    yield "- Values: float32 in [-1, 1] (pixel / 127.5 - 1), channels first"


def _layer_lines(findings: Findings) -> Iterator[str]:
    if any(layer.sentence for layer in findings.layers):
        yield "## Layers"
        yield from (f"- {layer.sentence}" for layer in findings.layers)
        yield ""


def _measured_lines(findings: Findings) -> Iterator[str]:
    """Figures of the report on this very checkpoint, else each layer's effect."""
    measured, effects = findings.measured, [layer.effect for layer in findings.layers]
    if not measured and not any(effects):
        yield "Not measured: `analysis report` writes a metrics.json that `analysis export --metrics` takes."
        return
    yield "| measure | value |"
    yield "| --- | --- |"
    if "n" in measured:
        yield f"| held-out images, by `analysis report` | {measured['n']:,.0f} |"
    for key, words, digits in (("l1", "reconstruction, L1 of [0, 1]", 4), ("psnr", "PSNR, dB", 2), ("ssim", "SSIM", 3)):
        if key in measured:
            yield f"| {words} | {measured[key]:.{digits}f} |"
    if any(effects):
        yield f"| effect of each layer, bottom first (0 = dead) | {', '.join(f'{e or 0:.2f}' for e in effects)} |"


def _made_lines(name: str, details: CardDetails) -> Iterator[str]:
    yield "```bash"
    yield f"accelerate launch pipeline/train.py --recipe {name}"
    if details.command:
        yield details.command
    yield "```"


def _usage(format: str, processing: ImageProcessing, latents: Sequence[int]) -> Iterator[str]:
    if format == "safetensors":
        yield "```bash"
        yield "pip install 'mmd-vlae[explore]'"
        yield "analysis explore .          # in this folder: a page with sliders for each layer"
        yield "```"
        yield "```python"
        yield "import analysis"
        yield ""
        yield 'model = analysis.load(".")  # or OWNER/NAME on the Hugging Face Hub'
        yield 'codes = model.encode("photo.jpg")           # one tensor for each layer, bottom first'
        yield 'model.decode(codes)[0].save("again.png")'
        yield "model.swap(codes, model.prior(1), layers=0)  # the same face with another layer 0"
        yield "```"
        return
    layers, (height, width, channels) = len(latents), processing.image_shape
    shape = f"{channels}, {height}, {width}"
    codes = ", ".join(f"z_{layer} (B, {d})" for layer, d in enumerate(latents))
    outputs = ", ".join(f"`{name}`" for name in output_names("encoder", layers))
    yield f"Encoder: `images` (B, {shape}), float32 in [-1, 1], to {outputs}, bottom layer first."
    yield f"Decoder: {codes} to `images`. Codes to decode are the means, or draws from N(0, 1)."
    yield ""
    yield f"```python\n{_SNIPPETS[format].format(shape=shape, inputs=input_names('decoder', layers))}```"


_SNIPPETS = {
    "onnx": """import numpy as np, onnxruntime

encoder, decoder = (onnxruntime.InferenceSession(f"{{part}}.onnx") for part in ("encoder", "decoder"))
images = np.zeros((1, {shape}), np.float32)
means = encoder.run(None, {{"images": images}})[::2]
(again,) = decoder.run(None, dict(zip({inputs}, means)))
""",
    "torch-export": """import torch

encoder, decoder = (torch.export.load(f"{{part}}.pt2").module() for part in ("encoder", "decoder"))
means = encoder(torch.zeros(1, {shape}))[::2]
again = decoder(*means)
""",
}
assert set(_SNIPPETS) == set(SUFFIX)


def read_report(named: Path | None, default: Path, digest: str) -> tuple[dict[str, float], str]:
    """Figures of a report for the card.

    Args:
        named: A metrics.json that was asked for.
        default: The one to look for otherwise.
        digest: SHA-256 of the checkpoint that is exported.

    Returns:
        ``l1``, ``psnr``, ``ssim``, ``n`` of held-out images, and a sentence where a file is there but not used,
        since it is of another checkpoint or of several.

    Raises:
        ExportError: The named file cannot be read, or is not a report's.
    """
    path = named or default
    if named is None and not path.exists():
        return {}, ""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        valid: Any = content["reconstruction"]["valid"]
        found = {key: float(valid[key]) for key in ("n", "l1", "psnr", "ssim") if valid.get(key) is not None}
    except OSError as error:
        raise ExportError(f"cannot read the metrics {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        if named is None:
            return {}, ""
        raise ExportError(
            f"{path} is not the metrics.json of a report on one checkpoint; make one with `analysis report`"
        ) from None
    if (content.get("provenance") or {}).get("checkpoint_sha256") != digest:
        return {}, f"{path} is a report on another checkpoint; its figures are not used"
    return found, ""


def write_card(folder: Path, text: str) -> None:
    """Writes a card to README.md in ``folder``, atomically."""
    write_file(folder / "README.md", text.encode())
