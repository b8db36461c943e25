"""A trained ladder for other programs: encoder and decoder as safetensors, ONNX or torch.export files, with a card.

Whatever is written is read back by the library that others would read it with, run, and compared with the checkpoint's
own model before it takes its name.
"""

from __future__ import annotations

import importlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from pipeline.checkpoint.file import CheckpointError, replacing
from pipeline.config.schema import Config
from pipeline.model.vlae import VLAE

Format = Literal["safetensors", "onnx", "torch-export"]
SUFFIX: dict[Format, str] = {"safetensors": ".safetensors", "onnx": ".onnx", "torch-export": ".pt2"}
NEEDS: dict[Format, tuple[str, ...]] = {
    "safetensors": ("safetensors",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "torch-export": (),
}
TOLERANCE = 1e-4  # largest |difference| of any output, of values in [-1, 1] and codes of about unit variance
TRACED_BATCH, CHECKED_BATCH = 2, 3


class ExportError(RuntimeError):
    """The model cannot be written, or what was written is another model; the message is one sentence."""


class EncoderOnly(nn.Module):
    """Images (B, C, H, W) in [-1, 1] to mean_0, std_0, mean_1, … of each layer's posterior, bottom first; (B, d_l)."""

    def __init__(self, vlae: VLAE) -> None:
        super().__init__()
        self.encoder = vlae.encoder

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(value for posterior in self.encoder(images) for value in posterior)


class DecoderOnly(nn.Module):
    """Codes z_0, z_1, … (B, d_l), bottom first, to images (B, C, H, W) in [-1, 1]."""

    def __init__(self, vlae: VLAE) -> None:
        super().__init__()
        self.decoder = vlae.decoder

    def forward(self, *codes: Tensor) -> Tensor:
        return torch.tanh(self.decoder(list(codes)))


def check_extras(format: Format) -> None:
    """Raises ExportError naming the extra where a library that the format needs is absent."""
    for name in NEEDS[format]:
        try:
            importlib.import_module(name)
        except ImportError:
            raise ExportError(f"--format {format} needs {name}: pip install 'mmd-vlae[export]'") from None


def examples(vlae: VLAE, batch: int) -> dict[str, tuple[Tensor, ...]]:
    """Inputs of encoder and decoder to trace or compare with: images like noise, codes from the prior."""
    generator = torch.Generator().manual_seed(batch)
    images = torch.rand(batch, *vlae.image_shape, generator=generator) * 2 - 1
    codes = tuple(torch.randn(batch, d, generator=generator) for d in vlae.latent_sizes)
    return {"encoder": (images,), "decoder": codes}


def output_names(part: str, layers: int) -> list[str]:
    """Names of a part's outputs, in their order."""
    if part == "decoder":
        return ["images"]
    return [f"{kind}_{layer}" for layer in range(layers) for kind in ("mean", "std")]


def input_names(part: str, layers: int) -> list[str]:
    """Names of a part's inputs, in their order."""
    return ["images"] if part == "encoder" else [f"z_{layer}" for layer in range(layers)]


def export_model(vlae: VLAE, config: Config, format: Format, out: Path) -> dict[str, float]:
    """Writes encoder and decoder (and config.json, for safetensors) into ``out``, each atomically.

    ``vlae`` on the CPU in eval mode. Returns the largest |difference| of each part's outputs, read back, from the
    model's own. Raises ExportError when an extra is absent or the difference is above TOLERANCE, and OSError.
    """
    check_extras(format)
    out.mkdir(parents=True, exist_ok=True)
    parts: dict[str, nn.Module] = {"encoder": EncoderOnly(vlae).eval(), "decoder": DecoderOnly(vlae).eval()}
    if format == "safetensors":
        described = {"image_shape": list(vlae.image_shape), "model": config.plain()["model"]}
        with replacing(out / "config.json") as temporary:
            temporary.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    differences: dict[str, float] = {}
    for name, part in parts.items():
        with replacing(out / f"{name}{SUFFIX[format]}") as temporary, _quiet():
            loaded = _WRITERS[format](part, name, vlae, config, temporary)
            differences[name] = _largest_difference(part, loaded, examples(vlae, CHECKED_BATCH)[name])
            if not differences[name] <= TOLERANCE:  # NaN is no agreement either
                raise ExportError(
                    f"the {name} written as {format} differs by {differences[name]:.1e} from the checkpoint's, more "
                    f"than {TOLERANCE:.0e}: nothing was kept; try another --format"
                )
    return differences


Runner = Callable[..., Sequence[Tensor]]
"""Runs a part that was read back: its inputs to its outputs."""


def _largest_difference(part: nn.Module, loaded: Runner, inputs: tuple[Tensor, ...]) -> float:
    with torch.no_grad():
        expected = part(*inputs)
        found = loaded(*inputs)
    expected = (expected,) if isinstance(expected, Tensor) else expected
    return max(float((a - b).abs().max()) for a, b in zip(expected, found, strict=True))


def _write_safetensors(part: nn.Module, name: str, vlae: VLAE, config: Config, path: Path) -> Runner:
    """Weights under the names that the VLAE's own state has: ``encoder.…`` and ``decoder.…``."""
    from safetensors.torch import load_file, save  # noqa: PLC0415

    # a contiguous copy of each: the model's weights lie channels-last, and the format knows one layout only
    weights = {key: value.clone(memory_format=torch.contiguous_format) for key, value in part.state_dict().items()}
    path.write_bytes(save(weights))
    fresh = VLAE(config.model, vlae.image_shape)
    again = (EncoderOnly if name == "encoder" else DecoderOnly)(fresh).eval()
    again.load_state_dict(load_file(path))

    def run(*inputs: Tensor) -> Sequence[Tensor]:
        outputs = again(*inputs)
        return (outputs,) if isinstance(outputs, Tensor) else outputs

    return run


def _dynamic(name: str, inputs: tuple[Tensor, ...]) -> Any:
    """Any number of images at a time: the first dimension of each input is free."""
    batch = {0: torch.export.Dim("batch", min=1)}
    return (batch,) if name == "encoder" else ((batch,) * len(inputs),)


def _exported(part: nn.Module, name: str, vlae: VLAE) -> torch.export.ExportedProgram:
    inputs = examples(vlae, TRACED_BATCH)[name]
    # laid out as any other program lays out its arrays, not channels-last
    plain = part.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    return torch.export.export(plain, inputs, dynamic_shapes=_dynamic(name, inputs))


def _write_torch_export(part: nn.Module, name: str, vlae: VLAE, config: Config, path: Path) -> Runner:
    with path.open("wb") as file:
        torch.export.save(_exported(part, name, vlae), cast(Any, file))
    with path.open("rb") as file:
        program = torch.export.load(cast(Any, file)).module()

    def run(*inputs: Tensor) -> Sequence[Tensor]:
        outputs = program(*inputs)
        return (outputs,) if isinstance(outputs, Tensor) else outputs

    return run


def _write_onnx(part: nn.Module, name: str, vlae: VLAE, config: Config, path: Path) -> Runner:
    import onnxruntime  # noqa: PLC0415

    layers = len(vlae.latent_sizes)
    names = input_names(name, layers)
    program = torch.onnx.export(
        _exported(part, name, vlae),
        dynamo=True,
        input_names=names,
        output_names=output_names(name, layers),
        external_data=False,
        verbose=False,
    )
    assert program is not None
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> Sequence[Tensor]:
        fed = {key: value.numpy() for key, value in zip(names, inputs, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, fed)]

    return run


_WRITERS: dict[Format, Callable[[nn.Module, str, VLAE, Config, Path], Runner]] = {
    "safetensors": _write_safetensors,
    "onnx": _write_onnx,
    "torch-export": _write_torch_export,
}


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters narrate; what matters is checked afterwards. Their failures become one sentence."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ExportError, CheckpointError, OSError):
        raise
    except Exception as error:
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(f"the model could not be exported: {first[0]}") from error
    finally:
        logging.disable(level)
