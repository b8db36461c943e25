"""Trained ladders as folders that need nothing else: weights, crop, latent directions and what probes found.

The folder's files are described in docs/formats.md. Nothing in it is unpickled: weights and latents are safetensors,
the rest is JSON and one PNG. Every size, name and number is checked against the model that ``config.json`` describes
before memory is allocated for it, so a folder from anybody can be opened.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.checkpoint.file import load_vlae
from pipeline.model.pretrained_schema import (
    FORMAT,
    FORMAT_VERSION,
    Findings,
    ImageProcessing,
    LayerLatents,
    Pretrained,
    PretrainedConfig,
    PretrainedError,
)
from pipeline.model.vlae import VLAE
from pipeline.model.weights import FOLDER, pretrained_names
from preprocess.errors import UserError, first_line
from preprocess.shards.manifest import Crop, Manifest, ManifestError

CONFIG, WEIGHTS, LATENTS = "config.json", "model.safetensors", "latents.safetensors"
FINDINGS, FACES, CARD = "findings.json", "faces.png", "README.md"
PICTURE = "layers.png"  # of the card
FILES = (CONFIG, WEIGHTS, LATENTS, FINDINGS, FACES, CARD, PICTURE)
Kind = TypeVar("Kind", bound=BaseModel)
FACE_COLUMNS = 8  # of faces.png
MAX_JSON_BYTES, MAX_PNG_BYTES = 4 << 20, 32 << 20
_DTYPES = {"F16", "BF16", "F32"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def open_pretrained(source: str | Path) -> Pretrained:
    """Loads a model from any of its places, on the CPU in eval mode.

    Args:
        source: The name of a model that comes with the package; a checkpoint (.pt); an exported folder; a run's folder,
            of which ckpt.pt is taken; or OWNER/NAME on the Hugging Face Hub.

    Raises:
        PretrainedError: There is no such model, or its folder is damaged.
        CheckpointError: The checkpoint cannot be read.
    """
    if isinstance(source, str) and source in pretrained_names():
        return read_folder(FOLDER / source)
    path = Path(source).expanduser()
    if path.is_dir():
        if (path / CONFIG).is_file():
            return read_folder(path)
        if (path / "ckpt.pt").is_file():
            return read_checkpoint_model(path / "ckpt.pt")
        raise PretrainedError(f"{path} holds neither {CONFIG} of an export nor the ckpt.pt of a run")
    if path.is_file() and path.suffix != ".safetensors":
        return read_checkpoint_model(path)
    if path.is_file():
        raise PretrainedError(f"{path} is one file of an export: name its folder {path.parent}")
    if isinstance(source, str) and hub_id(source) and not path.parent.is_dir():
        return read_folder(download(source))
    known = ", ".join(pretrained_names()) or "none"
    raise PretrainedError(
        f"there is no model {source}: name a ckpt.pt, an exported folder, or a pretrained model ({known})"
    )


def read_checkpoint_model(path: Path) -> Pretrained:
    """A checkpoint's model with its image processing, which older checkpoints leave to their shards.

    Raises:
        CheckpointError: The checkpoint cannot be read.
    """
    vlae, config, state = load_vlae(path)
    processing, warnings = checkpoint_processing(state)
    described = PretrainedConfig(
        name=config.name,
        step=state["progress"]["step"],
        images_seen=state["progress"].get("samples", 0),
        model=config.model,
        objective=config.objective,
        image_processing=processing,
        manifest_sha256=state["manifest_digest"],
    )
    return Pretrained(described, vlae, warnings=warnings)


def checkpoint_processing(state: Mapping[str, Any]) -> tuple[ImageProcessing, tuple[str, ...]]:
    """How images were cropped and resized for a checkpoint, and a warning where that is unknown."""
    if stored := state.get("image_processing"):
        try:
            return ImageProcessing.model_validate(stored), ()
        except ValidationError as error:
            raise PretrainedError(
                f"the checkpoint's field image_processing: {error.errors()[0]['msg'][:300]}"
            ) from None
    channels, height, width = state["image_shape"]
    shape: Any = (height, width, channels)
    try:
        manifest = Manifest.read(Path(state.get("data") or "shards"))
        if manifest.digest() == state["manifest_digest"]:
            return ImageProcessing(crop=manifest.crop, resample=manifest.resample, image_shape=shape), ()
    except (ManifestError, OSError):
        pass
    warning = (
        "the checkpoint does not say how its images were cropped, and its shards are gone: photographs are cut to "
        "their largest central square"
    )
    return ImageProcessing(crop=Crop(kind="square"), resample="bilinear", image_shape=shape), (warning,)


def read_folder(folder: Path) -> Pretrained:
    """Reads an exported folder.

    Raises:
        PretrainedError: A file is missing, damaged, or does not fit the model that config.json describes.
    """
    config = _parse(folder / CONFIG, PretrainedConfig)
    height, width, channels = config.image_processing.image_shape
    try:
        with torch.device("meta"):  # takes no memory: a few words may describe a model of any size
            described = VLAE(config.model, (channels, height, width)).state_dict()
    except (UserError, RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise PretrainedError(f"{folder / CONFIG} describes an impossible model: {first_line(error)}") from None
    weights = _read_tensors(folder / WEIGHTS, {key: tuple(value.shape) for key, value in described.items()})
    vlae = VLAE(config.model, (channels, height, width))
    vlae.load_state_dict(weights)
    vlae.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    tensors = _read_tensors(folder / LATENTS, _latent_shapes(config))
    depth = range(len(config.model.latents))
    latents = [LayerLatents(*(tensors[f"layer{layer}.{name}"] for name in LayerLatents._fields)) for layer in depth]
    if any(len(layer.directions) != len(layer.change) for layer in latents):
        raise PretrainedError(f"{folder / LATENTS} does not hold one change for each direction; export the model again")
    return Pretrained(
        config,
        vlae,
        latents,
        _rows("attributes", config.attributes, tensors, len(depth)),
        _rows("groups", config.groups, tensors, len(depth)),
        _parse(folder / FINDINGS, Findings),
        _read_faces(folder / FACES, config),
    )


def write_folder(folder: Path, model: Pretrained, precision: Literal["float32", "float16"] = "float32") -> None:
    """Writes everything but the card into ``folder``, each file atomically, ``config.json`` last.

    Args:
        folder: Is made where absent.
        model: Its latents must be there; vectors always keep float32.
        precision: Of matrices and convolutions.

    Raises:
        OSError: A file could not be written.
    """
    from safetensors.torch import save  # noqa: PLC0415

    from preprocess.shards.atomic import replace_file  # noqa: PLC0415

    assert model.latents is not None
    half = torch.float16 if precision == "float16" else torch.float32
    weights = {
        key: value.to("cpu", half if value.ndim > 1 else torch.float32).contiguous(
            memory_format=torch.contiguous_format
        )
        for key, value in model.vlae.state_dict().items()
    }
    latents = {
        f"layer{layer}.{name}": value.contiguous()
        for layer, values in enumerate(model.latents)
        for name, value in values._asdict().items()
    }
    for kind, rows in (("attributes", model.attributes), ("groups", model.groups)):
        for layer in range(len(model.latents) if rows else 0):
            latents[f"{kind}.layer{layer}"] = torch.cat([codes[layer] for codes in rows.values()])
    contents = {
        WEIGHTS: save(weights),
        LATENTS: save(latents),
        FINDINGS: _json(model.findings),
        CONFIG: _json(model.config),
    }
    folder.mkdir(parents=True, exist_ok=True)
    if model.faces is not None:
        contents = {FACES: _png(model.faces), **contents}
    for name, content in contents.items():
        with replace_file(folder / name) as temporary:
            temporary.write_bytes(content)


def hub_id(source: str) -> bool:
    """Whether a text can be a model on the Hugging Face Hub: OWNER/NAME."""
    return _HUB_ID.fullmatch(source) is not None


def download(source: str, **options: Any) -> Path:
    """Downloads a model's folder from the Hugging Face Hub: only files of the format, into the Hub's own cache.

    Args:
        source: OWNER/NAME.
        options: Of ``huggingface_hub.snapshot_download``, such as ``revision`` and ``token``.

    Raises:
        PretrainedError: huggingface_hub is absent, or the download failed.
    """
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415
    except ImportError:
        raise PretrainedError(
            f"{source} would come from the Hugging Face Hub, which needs huggingface_hub: pip install 'mmd-vlae[hub]'"
        ) from None
    try:
        return Path(snapshot_download(source, allow_patterns=list(FILES), **options))
    except Exception as error:  # the library raises its own, requests' and httpx's errors
        raise PretrainedError(
            f"cannot download {source} from the Hugging Face Hub ({first_line(error)}): check the name and the network"
        ) from None


def _parse(path: Path, kind: type[Kind]) -> Kind:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
        if len(content) > MAX_JSON_BYTES:
            raise PretrainedError(f"{path} has more than {MAX_JSON_BYTES:,} bytes: it was not written by this program")
        plain = json.loads(content)
    except FileNotFoundError:
        raise PretrainedError(f"{path} is missing; export the model again") from None
    except OSError as error:
        raise PretrainedError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise PretrainedError(f"{path} is not valid JSON ({first_line(error)}); export the model again") from None
    if kind is PretrainedConfig and isinstance(plain, Mapping):
        if plain.get("format") != FORMAT:
            raise PretrainedError(f"{path} is not of mmd-vlae: its 'format' is {str(plain.get('format'))[:40]!r}")
        if (version := plain.get("format_version", FORMAT_VERSION)) != FORMAT_VERSION:
            raise PretrainedError(
                f"{path} is of format_version {str(version)[:40]}, and this mmd-vlae reads {FORMAT_VERSION}: use the "
                "version of mmd-vlae that wrote it"
            )
    try:
        return kind.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])[:100]
        raise PretrainedError(f"{path}: {where}: {first['msg'][:300]}") from None


def _latent_shapes(config: PretrainedConfig) -> dict[str, tuple[int | None, ...]]:
    shapes: dict[str, tuple[int | None, ...]] = {}
    for layer, size in enumerate(config.model.latents):
        shapes |= {f"layer{layer}.mean": (size,), f"layer{layer}.std": (size,)}
        shapes |= {f"layer{layer}.directions": (None, size), f"layer{layer}.change": (None,)}
        for kind, names in (("attributes", config.attributes), ("groups", config.groups)):
            if names:
                shapes[f"{kind}.layer{layer}"] = (len(names), size)
    return shapes


def _read_tensors(path: Path, shapes: Mapping[str, tuple[int | None, ...]]) -> dict[str, Tensor]:
    """Tensors of exactly these names and shapes as float32; None in a shape is any number."""
    if not path.is_file():
        raise PretrainedError(f"{path} is missing; export the model again")
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            if set(file.keys()) != set(shapes):
                odd = sorted(set(file.keys()) ^ set(shapes))[0]
                raise PretrainedError(f"{path} does not fit {CONFIG}: '{odd[:100]}' is in only one of them")
            for key, shape in shapes.items():
                stored = file.get_slice(key)
                found = tuple(stored.get_shape())
                fits = len(found) == len(shape) and all(a in (b, None) for a, b in zip(shape, found, strict=True))
                if not fits or stored.get_dtype() not in _DTYPES:
                    raise PretrainedError(
                        f"{path} does not fit {CONFIG}: '{key}' is {stored.get_dtype()} {list(found)}, expected "
                        f"{[n or 'any' for n in shape]}"
                    )
            for key in shapes:
                tensors[key] = file.get_tensor(key).float()
    except (SafetensorError, OSError) as error:
        raise PretrainedError(
            f"{path} is not a whole safetensors file ({first_line(error)}); export the model again"
        ) from None
    if broken := next((key for key, value in tensors.items() if not value.isfinite().all()), None):
        raise PretrainedError(f"{path} holds values that are not finite in '{broken}'")
    return tensors


def _rows(kind: str, names: Sequence[str], tensors: Mapping[str, Tensor], depth: int) -> dict[str, list[Tensor]]:
    return {
        name: [tensors[f"{kind}.layer{layer}"][row : row + 1] for layer in range(depth)]
        for row, name in enumerate(names)
    }


def _json(value: BaseModel) -> bytes:
    return (json.dumps(value.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n").encode()


def _png(faces: np.ndarray) -> bytes:
    """uint8 (n, H, W, C) as one picture of FACE_COLUMNS columns without gaps."""
    count, height, width, channels = faces.shape
    rows = -(-count // FACE_COLUMNS)
    cells = np.zeros((rows * FACE_COLUMNS, height, width, channels), np.uint8)
    cells[:count] = faces
    sheet = cells.reshape(rows, FACE_COLUMNS, height, width, channels).swapaxes(1, 2)
    sheet = sheet.reshape(rows * height, FACE_COLUMNS * width, channels)
    stream = io.BytesIO()
    Image.fromarray(sheet.squeeze(2) if channels == 1 else sheet).save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def _read_faces(path: Path, config: PretrainedConfig) -> np.ndarray | None:
    """uint8 (n, H, W, C); None where the export has no faces."""
    if not config.faces:
        return None
    height, width, channels = config.image_processing.image_shape
    rows = -(-config.faces // FACE_COLUMNS)
    try:
        if path.stat().st_size > MAX_PNG_BYTES:
            raise PretrainedError(f"{path} has more than {MAX_PNG_BYTES:,} bytes: it was not written by this program")
        with Image.open(path, formats=["PNG"]) as sheet:
            size, mode = (FACE_COLUMNS * width, rows * height), "L" if channels == 1 else "RGB"
            if (sheet.size, sheet.mode) != (size, mode):
                raise PretrainedError(f"{path} is {sheet.mode} {sheet.size}, {CONFIG} describes {mode} {size}")
            pixels = np.asarray(sheet)
    except PretrainedError:
        raise
    except FileNotFoundError:
        raise PretrainedError(f"{path} is missing; export the model again") from None
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        raise PretrainedError(f"cannot read {path}: {first_line(error)}") from None
    cells = pixels.reshape(rows, height, FACE_COLUMNS, width, channels).swapaxes(1, 2)
    return cells.reshape(-1, height, width, channels)[: config.faces].copy()
