"""The README.md beside an exported model: what it is, what it was trained on, how well it does, how to run it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from analysis.export.export import SUFFIX, ExportError, Format, input_names, output_names
from pipeline.config.load import to_yaml
from pipeline.config.schema import Config
from pipeline.run.run_dir import read_metrics
from preprocess.shards.atomic import replace_file
from preprocess.shards.manifest import Manifest, ManifestError
from preprocess.shards.reader import ShardSet
from preprocess.synthetic.factors import FACTOR_NAMES

LICENSES = {
    "drawn faces": "drawn by mmd-vlae's `preprocess faces`: no person is shown, and the pictures are free of rights.",
    "celeba": (
        "CelebA: for non-commercial research only; models trained on it come under the same terms "
        "(Liu et al. 2015, mmlab.ie.cuhk.edu.hk/projects/CelebA.html). The faces are those of real people."
    ),
    "mnist": "MNIST (LeCun, Cortes and Burges), available under CC BY-SA 3.0.",
    "images": "a folder of images: **whoever passes this model on must say here under what terms they are.**",
    "unknown": "unknown, since the shards are no longer where they were: **whoever passes this model on must say.**",
}


def data_of(state: Mapping[str, Any]) -> tuple[str, Manifest | None]:
    """What the checkpoint was trained on, a key of LICENSES, and its manifest where the shards are still there."""
    try:
        shards = ShardSet.open(Path(state["data"]))
    except (ManifestError, OSError, KeyError):
        return "unknown", None
    if shards.digest != state["manifest_digest"]:
        return "unknown", None
    manifest = shards.manifest
    if manifest.factor_names == FACTOR_NAMES:
        return "drawn faces", manifest
    kind = manifest.source.kind.split()[0].lower()
    return next((known for known in LICENSES if kind.startswith(known)), "images"), manifest


def _data_lines(state: Mapping[str, Any]) -> Iterator[str]:
    kind, manifest = data_of(state)
    yield f"- License of the data: {LICENSES[kind]}"
    yield f"- SHA-256 of the shards' manifest: `{state['manifest_digest']}`"
    if manifest is not None:
        yield f"- Source: {manifest.source.kind}, {manifest.source.images:,} images; crop {manifest.crop},"
        yield f"  resized by {manifest.resample} interpolation"
        train = manifest.splits.get("train")
        if train is not None:
            yield f"- Trained on the {train.samples:,} images of the train split"


def _measured_lines(state: Mapping[str, Any], checkpoint: Path, metrics: Mapping[str, Any] | None) -> Iterator[str]:
    """Figures of the report of this very step, else of the run's own validation, else a sentence."""
    step = int(state["progress"]["step"])
    if metrics is not None and metrics.get("step") == step:
        valid = metrics["reconstruction"]["valid"]
        yield f"On {valid['n']:,} held-out images, by `analysis report`:"
        yield ""
        yield "| measure | value |"
        yield "| --- | --- |"
        yield f"| reconstruction, L1 of [0, 1] | {valid['l1']:.4f} |"
        yield f"| PSNR | {valid['psnr']:.2f} dB |"
        yield f"| SSIM | {valid['ssim']:.3f} |"
        effects = ", ".join(f"{layer['effect']:.2f}" for layer in metrics["layers"])
        yield f"| effect of each layer, bottom first (0 = dead) | {effects} |"
        return
    lines = [line["valid"] for line in read_metrics(checkpoint.parent) if "valid" in line and line["step"] == step]
    if lines:
        effects = ", ".join(f"{effect:.2f}" for effect in lines[-1]["effect"])
        valid = lines[-1]
        yield f"On {valid['samples']:,} images of the valid split, in training: L1 {valid['l1'] / 2:.4f} of [0, 1],"
        yield f"PSNR {valid['psnr']:.2f} dB, effect of each layer, bottom first, {effects}."
        return
    yield "Not measured at this step: `analysis report` writes a metrics.json that `--metrics` takes."


def _usage(format: Format, config: Config, image_shape: list[int]) -> str:
    layers = len(config.model.latents)
    codes = ", ".join(f"z_{layer} (B, {d})" for layer, d in enumerate(config.model.latents))
    shape = ", ".join(map(str, image_shape))
    outputs = ", ".join(f"`{name}`" for name in output_names("encoder", layers))
    intro = (
        f"Encoder: `images` (B, {shape}), float32 in [-1, 1], to {outputs}, "
        f"bottom layer first. Decoder: {codes} to `images`. Codes to decode are the means, or draws from N(0, 1)."
    )
    return f"{intro}\n\n```python\n{_SNIPPETS[format].format(shape=shape, inputs=input_names('decoder', layers))}```"


_SNIPPETS: dict[Format, str] = {
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
    "safetensors": """import json
from safetensors.torch import load_file
from pipeline.config.schema import ModelConfig
from pipeline.model.vlae import VLAE  # pip install mmd-vlae

config = json.load(open("config.json"))
vlae = VLAE(ModelConfig(**config["model"]), tuple(config["image_shape"]))
vlae.load_state_dict(load_file("encoder.safetensors") | load_file("decoder.safetensors"))
vlae.eval()
""",
}


def _without_folder(config: Config) -> Config:
    """The recipe without the folder of the shards, which says nothing to others."""
    return config.model_copy(update={"data": config.data.model_copy(update={"path": "shards/"})})


def model_card(
    checkpoint: Path,
    state: Mapping[str, Any],
    config: Config,
    format: Format,
    metrics: Mapping[str, Any] | None,
    differences: Mapping[str, float],
) -> str:
    """The card as Markdown; ``metrics`` are those of a report on one checkpoint, if there are any."""
    progress = state["progress"]
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    weights = "the moving average of the weights" if state.get("ema") else "the weights"
    suffix, worst = SUFFIX[format], max(differences.values())
    versions = ", ".join(f"{name} {version}" for name, version in sorted(state.get("versions", {}).items()))
    return "\n".join(
        [
            f"# {config.name}: an MMD variational ladder autoencoder",
            "",
            f"`encoder{suffix}` and `decoder{suffix}` hold {weights} after step {progress['step']:,} "
            f"({progress['samples']:,} images seen) of recipe `{config.name}`, seed {config.seed}: "
            f"{len(config.model.latents)} layers of {', '.join(map(str, config.model.latents))} latents.",
            f"Read back, their outputs differ by at most {worst:.0e} from the checkpoint's.",
            "",
            "## Use",
            _usage(format, config, list(state["image_shape"])),
            "",
            "## Data",
            *_data_lines(state),
            "",
            "## Measured",
            *_measured_lines(state, checkpoint, metrics),
            "",
            "## Limits",
            "Images must be cropped and resized as the training images were. What the data lack the model cannot draw,",
            "and attributes of its data are those of its annotators.",
            "",
            "## Recipe",
            "```yaml",
            to_yaml(_without_folder(config)).rstrip(),
            "```",
            "",
            f"Made by mmd-vlae from a checkpoint of SHA-256 `{digest}`"
            + (f"; trained with {versions}." if versions else "."),
            "",
        ]
    )


def read_report(named: Path | None, default: Path) -> dict[str, Any] | None:
    """The metrics.json of a report: the one named, else the default one where it is there. Raises ExportError."""
    path = named or default
    if named is None and not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        single = isinstance(found, dict) and "step" in found and "reconstruction" in found
    except (ValueError, OSError) as error:
        raise ExportError(f"cannot read the metrics {path}: {error}") from None
    if not single and named is not None:
        raise ExportError(f"{path} is no metrics.json of a report on one checkpoint; make one with `analysis report`")
    return found if single else None


def write_card(folder: Path, text: str) -> None:
    """Writes a ``model_card`` to README.md in ``folder``, atomically."""
    with replace_file(folder / "README.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
