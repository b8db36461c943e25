"""A checkpoint beside its shards as a :class:`Pretrained`: everything that an exported folder holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from analysis.figures.charts import TABLES
from analysis.figures.grids import farthest_first
from analysis.figures.motion import effective_directions
from analysis.inputs.context import EvalContext, Progress
from analysis.inputs.encode import Encoded, encoded_split, held_out, split_size
from analysis.metrics.layer_usage import effects
from analysis.model.statistics import attribute_means, prior_latents
from analysis.probes.dataset import probe_sample
from analysis.probes.probe import probe_all
from analysis.probes.scores import auc
from analysis.report.layer_summary import clear_leader, layer_sentences
from pipeline.data.counter_rng import Stream, normal
from pipeline.model.latents import layer_effects, split_layers
from pipeline.model.pretrained_schema import Findings, LayerFindings, Pretrained, TargetFindings
from pipeline.run.run_dir import without_nan

FIT_IMAGES, HELD_OUT_IMAGES = 10_000, 4_000
DIRECTION_IMAGES = 24  # images around which directions are measured
SHOWN_FACES = 32  # held-out images that travel with the model
CANDIDATES = 400  # among which they are looked for


def describe_without_shards(model: Pretrained, progress: Progress) -> Pretrained:
    """Adds what the model alone can tell: directions around draws of the prior, and each layer's effect."""
    sizes = model.vlae.latent_sizes
    latents = prior_latents(model.vlae, progress("principal directions", len(sizes)))
    base, drawn = (split_layers(normal(torch.arange(64), sum(sizes), Stream.PRIOR, seed), sizes) for seed in (1, 2))
    layers = tuple(LayerFindings(effect=effect) for effect in layer_effects(model.vlae, base, drawn).tolist())
    return replace(model, latents=latents, findings=Findings(layers=layers))


def describe(
    model: Pretrained, context: EvalContext, metrics: Mapping[str, Any] | None, progress: Progress
) -> Pretrained:
    """Adds latent statistics, directions, attribute groups, findings and held-out faces from the model's shards.

    Args:
        model: As :func:`pipeline.model.pretrained.read_checkpoint_model` gives it.
        context: The same checkpoint with its shards.
        metrics: What a report on the same checkpoint has measured of its layers; None = it is measured here, in the
            same way.
        progress: Told what is being done.

    Raises:
        EvalContextError: The shards hold too few held-out images.
    """
    scored = held_out(context, HELD_OUT_IMAGES, progress)
    fitted = encoded_split(context, "train", FIT_IMAGES, progress) if split_size(context.shards, "train") else None
    bases = [z[:: max(1, len(z) // DIRECTION_IMAGES)][:DIRECTION_IMAGES] for z in scored.means]
    advance = progress("principal directions", len(context.sizes))
    latents, labels = effective_directions(context, scored, bases, advance)
    figures = metrics
    if figures is None:
        layers = [{"effect": effect.value} for effect in effects(context, scored)]
        sample = probe_sample(context, scored)
        samples = sample.halves() if fitted is None else (probe_sample(context, fitted), sample)
        measured = {"layers": layers, **probe_all(*samples, progress)}
        figures = without_nan(measured)
    names, known = context.shards.manifest.attribute_names, scored if fitted is None else fitted
    directions, groups = attribute_means(known.means, names, known.annotations.attributes)
    faces = scored.images[shown_faces(scored)]
    update = {"attributes": tuple(directions), "groups": tuple(groups), "faces": len(faces)}
    return replace(
        model,
        config=model.config.model_copy(update=update),
        latents=latents,
        attributes=directions,
        groups=groups,
        findings=Findings(
            held_out=len(scored),
            layers=layer_findings(figures, labels),
            targets=target_findings(figures),
            attribute_directions=_direction_scores(directions, names, scored),
        ),
        faces=faces,
    )


def layer_findings(metrics: Mapping[str, Any], labels: Sequence[tuple[str, ...]]) -> tuple[LayerFindings, ...]:
    """The effect of each layer, what the report says of it, and the ``labels`` of its directions."""
    found = zip(metrics["layers"], layer_sentences(metrics), labels, strict=True)
    return tuple(
        LayerFindings(effect=entry["effect"], sentence=f"Layer {layer} {sentence}", directions=names)
        for layer, (entry, sentence, names) in enumerate(found)
    )


def target_findings(metrics: Mapping[str, Any]) -> tuple[TargetFindings, ...]:
    """The scores of the probes."""
    return tuple(
        TargetFindings(
            kind=table.key.removesuffix("s"),  # pyright: ignore[reportArgumentType]
            name=name,
            score=table.unit,  # pyright: ignore[reportArgumentType]
            scores=tuple(row[table.score]),
            chance=row["chance"],
            best_layer=clear_leader(table, row),
        )
        for table in TABLES
        for name, row in metrics[table.key].items()
    )


def _direction_scores(directions: Mapping[str, Any], names: Sequence[str], encoded: Encoded) -> dict[str, float]:
    """AUC of the position along each attribute's direction, in units of each layer's spread, on held-out images."""
    scores: dict[str, float] = {}
    codes = torch.cat(encoded.means, 1)
    scaled = codes / (codes.var(0) + 1e-6)
    for name, direction in directions.items():
        values = encoded.annotations.attributes[:, names.index(name)]
        position = (scaled @ torch.cat(direction, 1)[0]).numpy()
        value = auc(values[values >= 0], position[values >= 0]).value
        if np.isfinite(value):
            scores[name] = round(value, 4)
    return scores


def shown_faces(encoded: Encoded) -> np.ndarray:
    """Rows of held-out images that differ, of the first CANDIDATES but for the tenth with the most unusual codes."""
    codes = torch.cat(encoded.means, 1)
    z = ((codes - codes.mean(0)) / (codes.std(0) + 1e-6))[:CANDIDATES]
    unusual = z.pow(2).sum(1)
    usual = torch.nonzero(unusual <= unusual.quantile(0.9))[:, 0]
    return usual[farthest_first(z[usual], int(unusual[usual].argmin()), SHOWN_FACES)].numpy()
