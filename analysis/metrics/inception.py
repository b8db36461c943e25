"""FID and KID of samples on Inception's features, by torchmetrics, where its weights can be had."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from analysis.inputs.context import EvalContext
from analysis.inputs.encode import in_chunks
from analysis.metrics.memorization import prior_samples
from pipeline.model.pixels import to_uint8

ON_GPU, ON_CPU = 10_000, 1_000  # images of each kind: a CPU core takes about a tenth of a second for each
FEATURES = 2048
FEWEST_FOR_FID = FEATURES  # with fewer images the features' covariance has no full rank, and FID means little
BATCH = 50
SUBSETS, LARGEST_SUBSET = 50, 1_000


class NoInception(Exception):
    """Inception cannot be had; the message says why and what to do."""


class _Features(nn.Identity):
    """What torchmetrics takes for a network whose features it is handed."""

    num_features = FEATURES


def load_inception(device: torch.device) -> nn.Module:
    """uint8 images (B, 3, H, W) to features (B, FEATURES); its 92 MB of weights are downloaded where they are missing.

    Raises:
        NoInception: the extra is missing, there is no network, or the file is not what it should be.
    """
    try:
        from torch_fidelity import feature_extractor_inceptionv3 as source  # noqa: PLC0415 # pyright: ignore[reportMissingImports]
        from torchmetrics.image.fid import NoTrainInceptionV3  # noqa: PLC0415 # pyright: ignore[reportMissingImports]
    except ImportError:
        raise NoInception("FID needs pip install 'mmd-vlae[fid]'") from None
    address = source.URL_INCEPTION_V3
    path = Path(torch.hub.get_dir()) / "checkpoints" / address.rsplit("/", 1)[1]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(address, str(path), progress=False)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise NoInception(f"Inception's weights cannot be downloaded ({reason}): put {address} at {path}") from None
    refuse_strange_weights(path)
    network = NoTrainInceptionV3("inception-v3-compat", [str(FEATURES)], str(path))
    return network.to(device)


def refuse_strange_weights(path: Path) -> None:
    """Checks the file before torch-fidelity unpickles it: its SHA-256 is the one in its name, and it has only tensors.

    Raises:
        NoInception: the first digits of its SHA-256 are not those in its name, or it holds more than tensors.
    """
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(path.stem.rsplit("-", 1)[1]):
        raise NoInception(f"{path} is not what its name says (its SHA-256 begins with {digest[:8]}): remove it")
    try:
        torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise NoInception(f"{path} holds more than weights ({str(error).splitlines()[0][:200]}): remove it") from None


def as_seen(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) of images (B, C, H, W) in [−1, 1]; gray ones three times over."""
    pixels = to_uint8(images)
    return pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels


@torch.inference_mode()
def features(network: nn.Module, images: Tensor, advance: Callable[[int], None]) -> Tensor:
    """(n, FEATURES) of images (n, C, H, W) in [−1, 1]."""
    found = []
    for chunk in images.split(BATCH):
        found.append(network(as_seen(chunk)).float().cpu())
        advance(len(chunk))
    return torch.cat(found)


def distances(samples: Tensor, real: Tensor) -> dict[str, Any]:
    """``fid`` (None with fewer than FEWEST_FOR_FID rows), ``kid_inception`` and its ``_std`` over subsets of ``real``.

    Rows of FEATURES each. FID: Heusel et al. 2017; KID: Binkowski et al. 2018, unbiased.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance  # noqa: PLC0415 # pyright: ignore[reportMissingImports]
    from torchmetrics.image.kid import KernelInceptionDistance  # noqa: PLC0415 # pyright: ignore[reportMissingImports]

    fewest = min(len(samples), len(real))
    subset = min(LARGEST_SUBSET, fewest // 2)
    kid = KernelInceptionDistance(feature=_Features(), subsets=SUBSETS, subset_size=subset)
    fid = FrechetInceptionDistance(feature=_Features())
    for metric in (kid, fid):
        metric.update(samples, real=False)
        metric.update(real, real=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mean, std = kid.compute()
    enough = fewest >= FEWEST_FOR_FID
    return {
        "fid": float(fid.compute()) if enough else None,
        "kid_inception": float(mean),
        "kid_inception_std": float(std),
        "n_inception": fewest,
    }


def inception_quality(
    context: EvalContext, held_out: np.ndarray, progress: Callable[[str, int], Callable[[int], None]]
) -> dict[str, Any]:
    """``distances`` of samples from the prior to ``held_out`` images, uint8 (n, H, W, C).

    Raises:
        NoInception: When the network cannot be had.
    """
    network = load_inception(context.device)
    count = min(len(held_out), ON_GPU if context.device.type == "cuda" else ON_CPU)
    advance = progress("Inception's features", 2 * count)
    samples = features(network, prior_samples(context, count).to(context.device), advance)
    real = features(network, torch.cat(list(in_chunks(held_out[:count]))).to(context.device), advance)
    return distances(samples, real)
