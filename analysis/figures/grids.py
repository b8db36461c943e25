"""Figures of decoded images: reconstructions, samples, manifolds, layer swaps, arithmetic, edits, interpolations.

Letters in shapes: n images, L layers, d_l latent dimensions of layer l, C H W image. A code is a list of one tensor per
layer, bottom first; one image's code has tensors (1, d_l). Images are float32 in [−1, 1] unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from analysis.figures.latent_arithmetic import Row
from analysis.figures.motion import moved
from analysis.figures.tiles import enlarged_sheet, labeled_rows, pairs_sheet, short_label
from analysis.inputs.context import EvalContext
from analysis.inputs.encode import Encoded, decode_codes
from analysis.metrics.memorization import nearest_distances, pixel_features, prior_samples, stored_features
from pipeline.data.counter_rng import Stream, normal
from pipeline.model.latents import manifold_codes, replace_layer, split_layers
from pipeline.model.pixels import from_array
from pipeline.model.vlae import VLAE

EDIT_STRENGTHS = (-3, -2, -1, 0, 1, 2, 3)
RECONSTRUCTIONS, NEAREST = 30, 20
SAMPLES, SAMPLE_SEED = 64, 2
TRAVERSAL_STEPS = 7
MOST_TRAVERSALS = 16  # rows; a layer may have more dimensions
INTERPOLATION_STEPS = 9
SWAPPED_FACES = 8
FACE_MANIFOLD_SIDE, FACE_MANIFOLD_REACH = 7, 2.5  # cells; standard deviations
CANDIDATES = 64  # held-out images among which the shown ones are looked for: no search for pretty ones
FAR_CANDIDATES = 200  # the same for the end of an interpolation


def code_of(encoded: Encoded, index: int) -> list[Tensor]:
    """Mean code of one image of ``encoded``: (1, d_l) a layer."""
    return [z[index : index + 1] for z in encoded.means]


def closest_to_mean(encoded: Encoded, among: int | None = CANDIDATES) -> int:
    """Index of the image, of the first ``among``, whose code is nearest to the mean code of all."""
    z = torch.cat(encoded.means, dim=1)
    return int((z[:among] - z.mean(0)).pow(2).sum(1).argmin())


def farthest_first(z: Tensor, first: int, count: int) -> list[int]:
    """Rows of ``z`` (n, d) that differ much: ``first``, then always the one farthest from all before; n at most."""
    chosen, distance = [first], torch.full((len(z),), torch.inf)
    while len(chosen) < min(count, len(z)):
        distance = torch.minimum(distance, (z - z[chosen[-1]]).pow(2).sum(1))
        chosen.append(int(distance.argmax()))
    return chosen


def varied(encoded: Encoded, count: int) -> list[int]:
    """Indices of images whose codes differ much, the first closest to the mean; fewer where there are not as many."""
    return farthest_first(torch.cat(encoded.means, dim=1)[:CANDIDATES], closest_to_mean(encoded), count)


def reconstructions(context: EvalContext, encoded: Encoded) -> Image.Image:
    """Draws held-out images, each above its reconstruction from mean codes."""
    decoded = decode_codes(context.vlae, [z[:RECONSTRUCTIONS] for z in encoded.means])
    return pairs_sheet(from_array(encoded.images[:RECONSTRUCTIONS]), decoded)


def samples(context: EvalContext) -> Image.Image:
    """Draws images decoded from the prior."""
    drawn = normal(torch.arange(SAMPLES), sum(context.sizes), Stream.PRIOR, SAMPLE_SEED)
    return enlarged_sheet(decode_codes(context.vlae, split_layers(drawn, context.sizes)), 8)


def manifold(vlae: VLAE, layer: int, side: int = 10, seed: int = 0) -> Image.Image:
    """Draws one layer uniform in [−3, 3], the others sampled once from the prior (paper, Figures 2 and 3)."""
    return enlarged_sheet(decode_codes(vlae, manifold_codes(layer, vlae.latent_sizes, side, seed)), side)


def face_manifold(vlae: VLAE, code: Sequence[Tensor], layer: int, directions: Tensor) -> Image.Image:
    """Draws a grid around one image: the image in the middle, one layer moved along two directions.

    Args:
        vlae: The model.
        code: Code of the image, (1, d_l) a layer.
        layer: The layer that moves; the others are held.
        directions: (k, d_l), one standard deviation long. The first runs to the right and the second up; where there is
            one only, the grid is one row.
    """
    axis = torch.linspace(-FACE_MANIFOLD_REACH, FACE_MANIFOLD_REACH, FACE_MANIFOLD_SIDE)
    steps = axis[:, None] * directions[0]
    if len(directions) > 1:
        steps = (axis.flip(0)[:, None, None] * directions[1] + steps).flatten(0, 1)
    return enlarged_sheet(decode_codes(vlae, moved(code, layer, steps)), FACE_MANIFOLD_SIDE)


def layer_swaps(vlae: VLAE, codes_face: Sequence[Tensor], codes_others: Sequence[Tensor]) -> Tensor:
    """Decodes one face with each layer in turn taken from each of n others.

    Args:
        vlae: The model.
        codes_face: Code of the face, (1, d_l) a layer.
        codes_others: Codes of the other faces, (n, d_l) a layer.

    Returns:
        (L, n, C, H, W): row l holds the face with layer l of each other face.
    """
    count = len(codes_others[0])
    face = [z.expand(count, -1) for z in codes_face]
    rows = [replace_layer(face, codes_others, layer) for layer in range(len(face))]
    images = decode_codes(vlae, [torch.cat(parts) for parts in zip(*rows, strict=True)])
    return images.unflatten(0, (len(face), count))


def layer_swap_picture(
    vlae: VLAE, codes: Sequence[Tensor], photographs: Tensor | None = None, labels: Sequence[str] = (), cell: int = 112
) -> Image.Image:
    """Draws ``layer_swaps`` with the faces above it and the face itself at the left of each row.

    Args:
        vlae: The model.
        codes: Of the face and of n others, (1 + n, d_l) a layer.
        photographs: (1 + n, C, H, W) in [−1, 1], the face first; None = only their reconstructions are shown.
        labels: One label per layer, bottom first; none = "layer l".
        cell: Height of an image on the picture, pixels.
    """
    swaps = layer_swaps(vlae, [z[:1] for z in codes], [z[1:] for z in codes])
    plain = decode_codes(vlae, codes)
    rows = [] if photographs is None else [("photographs", photographs)]
    rows.append(("all layers", plain))
    names = labels or [f"layer {layer}" for layer in range(len(swaps))]
    rows += [(name, torch.cat([plain[:1], row])) for name, row in zip(names, swaps, strict=True)]
    titles = ["one face", *(f"face {i}" for i in range(1, len(plain)))]
    return labeled_rows(rows, titles, cell, first_apart=True)


def swaps_of_held_out(context: EvalContext, encoded: Encoded, labels: Sequence[str] = ()) -> Image.Image:
    """Draws ``layer_swap_picture`` of one held-out face and eight others that differ much from each other."""
    chosen = varied(encoded, 1 + SWAPPED_FACES)
    codes = [z[chosen] for z in encoded.means]
    return layer_swap_picture(context.vlae, codes, from_array(encoded.images[chosen]), labels)


def arithmetic(rows: Sequence[Row]) -> Image.Image:
    """Draws columns a, b, c, a − b + c with each row's equation beside it (paper, Figure 4)."""
    labeled = [(row.label, row.images) for row in rows]
    return labeled_rows(labeled, ("a", "b", "c", "a − b + c"), 112, labels_right=True)


def edited(vlae: VLAE, code: Sequence[Tensor], direction: Sequence[Tensor]) -> Tensor:
    """Decodes a code (1, d_l) moved along a direction (1, d_l) by each of EDIT_STRENGTHS: (7, C, H, W)."""
    steps = torch.tensor(EDIT_STRENGTHS, dtype=torch.float32)[:, None]
    return decode_codes(vlae, [z + steps * d for z, d in zip(code, direction, strict=True)])


def edit_picture(rows: Sequence[tuple[str, Tensor]], photograph: Tensor) -> Image.Image:
    """Draws rows of ``edited`` images, each with its label; ``photograph`` (1, C, H, W) stands at the left of each."""
    titles = ["photograph", *(f"{strength:+d}" if strength else "as it is" for strength in EDIT_STRENGTHS)]
    return labeled_rows([(label, torch.cat([photograph, images])) for label, images in rows], titles, first_apart=True)


def edits(
    context: EvalContext, encoded: Encoded, directions: Mapping[str, Sequence[Tensor]], index: int
) -> Image.Image | None:
    """Draws one image moved along each attribute's direction, (1, d_l) a layer; None where there are no directions."""
    code = code_of(encoded, index)
    rows = [(short_label(name), edited(context.vlae, code, by)) for name, by in directions.items()]
    return edit_picture(rows, from_array(encoded.images[index : index + 1])) if rows else None


def traversals(context: EvalContext, encoded: Encoded, layer: int) -> Image.Image:
    """Draws each dimension of one layer from −3 to 3 around a typical image, the largest change first."""
    dim = context.sizes[layer]
    steps = torch.linspace(-3, 3, TRAVERSAL_STEPS)
    codes = [z.expand(dim * TRAVERSAL_STEPS, -1).clone() for z in code_of(encoded, closest_to_mean(encoded, None))]
    unit = torch.arange(dim).repeat_interleave(TRAVERSAL_STEPS)
    codes[layer][torch.arange(len(unit)), unit] = steps.repeat(dim)
    lines = decode_codes(context.vlae, codes).unflatten(0, (dim, TRAVERSAL_STEPS))
    change = (lines[:, 1:] - lines[:, :-1]).abs().mean((1, 2, 3, 4))
    order = change.argsort(descending=True).tolist()[:MOST_TRAVERSALS]
    titles = [f"{value:+.0f}" if value else "0" for value in steps.tolist()]
    return labeled_rows([(f"dimension {i}", lines[i]) for i in order], titles, 72)


def interpolated(a: Sequence[Tensor], b: Sequence[Tensor], layers: Sequence[int]) -> list[Tensor]:
    """Codes (INTERPOLATION_STEPS, d_l) from a to b, (1, d_l) each, on ``layers``; the others stay a's."""
    share = torch.linspace(0, 1, INTERPOLATION_STEPS)[:, None]
    return [x + share * (y - x) * (i in layers) for i, (x, y) in enumerate(zip(a, b, strict=True))]


def interpolations(context: EvalContext, encoded: Encoded) -> Image.Image:
    """Draws the way from one held-out image to another that is as different as can be."""
    _, far = farthest_first(torch.cat(encoded.means, dim=1)[:FAR_CANDIDATES], 0, 2)
    return interpolation_picture(context.vlae, code_of(encoded, 0), code_of(encoded, far))


def interpolation_picture(vlae: VLAE, a: Sequence[Tensor], b: Sequence[Tensor]) -> Image.Image:
    """Draws the way from a to b, codes (1, d_l): on all layers, then on each alone; columns are the share of b."""
    depth = len(a)
    ways = [("all layers", list(range(depth))), *((f"layer {layer}", [layer]) for layer in range(depth))]
    rows = [(label, decode_codes(vlae, interpolated(a, b, layers))) for label, layers in ways]
    return labeled_rows(rows, [f"{100 * share:.0f} %" for share in np.linspace(0, 1, INTERPOLATION_STEPS)])


def nearest_training_images(context: EvalContext, train: np.ndarray) -> Image.Image:
    """Draws samples from the prior, each above the image of ``train``, uint8 (n, H, W, C), nearest to it in pixels."""
    drawn = prior_samples(context, NEAREST)
    _, which = nearest_distances(pixel_features(drawn), stored_features(train))
    return pairs_sheet(drawn, from_array(train[which]))
