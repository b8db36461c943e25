"""The README.md beside an exported model: what it is, how to use it, what it was trained on, how well it does."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import yaml

from analysis.export.export import SUFFIX, input_names, output_names
from analysis.figures.grids import layer_swap_picture
from analysis.model.ladder import LadderModel
from analysis.report.report import installed_version
from pipeline.config.load import changed_values, recipe_names, resolve
from pipeline.config.schema import Config
from pipeline.model.pixels import from_array
from pipeline.model.pretrained import CARD, PICTURE
from pipeline.model.pretrained_schema import ImageProcessing, Pretrained
from preprocess.shards.atomic import write_file
from preprocess.synthetic.factors import FACTOR_NAMES

GRADIO = "6.0"  # of a Space, where none is installed here
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


@dataclass(frozen=True)
class CardDetails:
    """What a card says besides what is in the model itself."""

    format: str = "safetensors"
    commands: Sequence[str] = ()
    """The commands that trained and exported the model; none where they are not known."""
    recipe: str = ""
    """YAML of the recipe; '' where it is not known."""
    weights: str = "the weights"
    differences: Mapping[str, float] | None = None
    """Largest |difference| of outputs read back, for each part that was written."""


def data_terms(source: str, factor_names: Sequence[str]) -> str:
    """The sentence of LICENSES for a manifest's source."""
    kind = source.split(maxsplit=1)[0].lower() if source else "unknown"
    if tuple(factor_names) == tuple(FACTOR_NAMES):
        kind = "drawn faces"
    return LICENSES[next((known for known in LICENSES if kind.startswith(known)), "images")]


def training_command(config: Config) -> str:
    """The command that trains by a configuration: a recipe that comes with the project, and what differs from it.

    A recipe that does not come with it is called recipe.yaml: the card holds it whole.
    """
    words = ["accelerate", "launch", "pipeline/train.py", "--recipe"]
    if config.name not in recipe_names():
        return shlex.join([*words, "recipe.yaml"])
    overrides = []
    for key, (_, value, _) in changed_values(resolve(config.name, {}), config).items():
        text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=float("inf"))
        overrides.append(f"{key}=" + text.removesuffix("...\n").strip())
    return shlex.join([*words, config.name, *overrides])


def write_card(folder: Path, model: Pretrained, details: CardDetails | None = None) -> None:
    """Writes README.md into ``folder``, and a picture for it where the model has faces, each atomically.

    Without ``details`` it is the card of a folder that was saved from Python.
    """
    details = details or CardDetails()
    if picture := _layer_swaps(model):
        write_file(folder / PICTURE, picture)
    environment = jinja2.Environment(  # Markdown, not HTML
        loader=jinja2.PackageLoader("analysis.export"),
        autoescape=False,  # noqa: S701
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    config, layers = model.config, len(model.config.model.latents)
    height, width, channels = config.image_processing.image_shape
    text = environment.get_template("card.md").render(
        details=details,
        config=config,
        findings=model.findings,
        license=json.dumps(config.license),
        gradio=installed_version("gradio") or GRADIO,
        parameters=sum(parameter.numel() for parameter in model.vlae.parameters()),
        picture=PICTURE if picture else "",
        is_parts=details.format in SUFFIX,
        shape=f"{channels}, {height}, {width}",
        outputs=", ".join(f"`{name}`" for name in output_names("encoder", layers)),
        codes=", ".join(f"z_{layer} (B, {d})" for layer, d in enumerate(config.model.latents)),
        inputs=input_names("decoder", layers),
        crop=crop_words(config.image_processing),
        unknown_data=LICENSES["unknown"],
    )
    write_file(folder / CARD, text.encode())


def crop_words(processing: ImageProcessing) -> str:
    """The crop in numbers."""
    crop = {
        "center": f"the central square of {processing.crop.size} pixels",
        "square": "the largest central square",
        "box": f"the box (left, top, right, bottom) = {processing.crop.box}",
        "none": "the whole image",
    }[processing.crop.kind]
    if processing.source_size is None:
        return crop
    height, width = processing.source_size
    return f"{crop} of images of {width}x{height} pixels"


def _layer_swaps(model: Pretrained) -> bytes:
    """The first face with each layer of others, as PNG; b'' without faces."""
    if model.faces is None or len(model.faces) < 3:
        return b""
    ladder = LadderModel(model)
    faces = from_array(model.faces[:9])
    codes = [z.cpu() for z in ladder.encode(faces)]
    buffer = io.BytesIO()
    layer_swap_picture(model.vlae, codes, faces, cell=80).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
