"""Encoder and decoder as ONNX or torch.export files, for programs that do not know mmd-vlae.

Each file is read back by the library that others read it with, run, and compared with the checkpoint's model before it
takes its name.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from pipeline.model.vlae import VLAE
from preprocess.errors import UserError, first_line
from preprocess.shards.atomic import replace_file

Format = Literal["onnx", "torch-export"]
SUFFIX = {"onnx": ".onnx", "torch-export": ".pt2"}
TOLERANCE = 1e-4  # largest |difference| of any output, of values in [-1, 1] and codes of about unit variance
TRACED_BATCH, CHECKED_BATCH = 2, 3
Outputs = Tensor | Sequence[Tensor]


class ExportError(UserError):
    """The model cannot be written, or the file that was written gives other outputs."""


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


def check_extras(format: str) -> None:
    """Sees that the libraries that a format needs are there.

    Raises:
        ExportError: When one is absent; names the extra.
    """
    for name in ("onnx", "onnxscript", "onnxruntime") if format == "onnx" else ():
        try:
            importlib.import_module(name)
        except ImportError:
            raise ExportError(f"--format {format} needs {name}: pip install 'mmd-vlae[export]'") from None


def export_parts(vlae: VLAE, format: Format, out: Path) -> dict[str, float]:
    """Writes encoder and decoder of a model on the CPU in eval mode into ``out``, each atomically.

    Returns:
        The largest |difference| of each part's outputs, read back, from the model's own.

    Raises:
        ExportError: The difference is above TOLERANCE.
    """
    out.mkdir(parents=True, exist_ok=True)
    write = _write_onnx if format == "onnx" else _write_torch_export
    differences: dict[str, float] = {}
    for name, part in (("encoder", EncoderOnly(vlae).eval()), ("decoder", DecoderOnly(vlae).eval())):
        with replace_file(out / f"{name}{SUFFIX[format]}") as temporary, _quiet():
            loaded, inputs = write(part, name, vlae, temporary), examples(vlae, CHECKED_BATCH)[name]
            with torch.no_grad():
                differences[name] = _largest_difference(part(*inputs), loaded(*inputs))
            if not differences[name] <= TOLERANCE:  # NaN differs too
                raise ExportError(
                    f"the {name} written as {format} differs by {differences[name]:.1e} from the checkpoint's, more "
                    f"than {TOLERANCE:.0e}: nothing was kept; try another --format"
                )
    return differences


def _largest_difference(expected: Outputs, found: Outputs) -> float:
    one, other = ((outputs,) if isinstance(outputs, Tensor) else outputs for outputs in (expected, found))
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


def _traced(part: nn.Module, name: str, vlae: VLAE) -> torch.export.ExportedProgram:
    inputs = examples(vlae, TRACED_BATCH)[name]
    batch = {0: torch.export.Dim("batch", min=1)}  # any number of images at a time
    shapes: Any = (batch,) if name == "encoder" else ((batch,) * len(inputs),)
    # laid out as any other program lays out its arrays, not channels-last
    plain = part.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    return torch.export.export(plain, inputs, dynamic_shapes=shapes)


def _write_torch_export(part: nn.Module, name: str, vlae: VLAE, path: Path) -> Callable[..., Outputs]:
    with path.open("wb") as file:
        torch.export.save(_traced(part, name, vlae), cast(Any, file))
    with path.open("rb") as file:
        return torch.export.load(cast(Any, file)).module()


def _write_onnx(part: nn.Module, name: str, vlae: VLAE, path: Path) -> Callable[..., Outputs]:
    import onnxruntime  # noqa: PLC0415

    names, outputs = (named(name, len(vlae.latent_sizes)) for named in (input_names, output_names))
    program = torch.onnx.export(
        _traced(part, name, vlae),
        dynamo=True,
        input_names=names,
        output_names=outputs,
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


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporters, whose result is checked afterwards. Their failures become one sentence."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (UserError, OSError):
        raise
    except Exception as error:
        raise ExportError(f"the model could not be exported: {first_line(error)}") from error
    finally:
        logging.disable(level)
