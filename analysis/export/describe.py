"""A checkpoint beside its shards as a :class:`Pretrained`: everything that an exported folder holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from analysis.figures.charts import TABLES
from analysis.inputs.context import EvalContext, Progress
from analysis.inputs.encode import Encoded, encoded_split, held_out, held_out_count
from analysis.model.statistics import attribute_means, complete_latents, label_directions, layer_latents
from analysis.probes.dataset import Sample, all_targets
from analysis.probes.probe import Tables, probe_all
from analysis.probes.scores import auc
from analysis.report.layer_summary import clear_leader, layer_sentences
from pipeline.data.counter_rng import Stream, normal
from pipeline.model.latents import layer_effects, split_layers
from pipeline.model.pretrained_schema import Findings, LayerFindings, Pretrained, TargetFindings

FIT_IMAGES, HELD_OUT_IMAGES = 10_000, 4_000
EFFECT_IMAGES = 256
SHOWN_FACES = 32  # held-out images that travel with the model


def describe_without_shards(model: Pretrained, progress: Progress) -> Pretrained:
    """Adds what the model alone can tell: directions around draws of the prior, and each layer's effect."""
    latents = complete_latents(model, progress("principal directions", len(model.vlae.latent_sizes)))
    sizes = model.vlae.latent_sizes
    base, drawn = (split_layers(normal(torch.arange(64), sum(sizes), Stream.PRIOR, seed), sizes) for seed in (1, 2))
    effects = layer_effects(model.vlae, base, drawn).tolist()
    layers = tuple(LayerFindings(effect=effect) for effect in effects)
    return replace(model, latents=latents, findings=Findings(layers=layers))


def describe(model: Pretrained, context: EvalContext, progress: Progress) -> Pretrained:
    """Adds latent statistics, directions, attribute groups, findings and held-out faces from the model's shards.

    Args:
        model: As :func:`pipeline.model.pretrained.read_checkpoint_model` gives it.
        context: The same checkpoint with its shards.
        progress: Told what is being done.

    Raises:
        EvalContextError: The shards hold too few held-out images.
    """
    manifest = context.shards.manifest
    scored = held_out(context, HELD_OUT_IMAGES, progress("held-out codes", held_out_count(context, HELD_OUT_IMAGES)))
    train = manifest.splits.get("train")
    fitted = scored
    if train is not None and train.samples:
        count = min(FIT_IMAGES, train.samples)
        fitted = encoded_split(context, "train", count, progress("training codes", count))
    samples = [_sample(context, encoded) for encoded in (fitted, scored)]
    if fitted is scored:
        samples = list(samples[1].halves())
    latents = layer_latents(context.vlae, scored.means, progress("principal directions", len(context.sizes)))
    varying = [t for t in samples[1].targets if t.kind != "label"]
    values = np.stack([t.values for t in varying], 1) if varying else np.empty((len(samples[1].layers[0]), 0))
    codes = [torch.from_numpy(z) for z in samples[1].layers]
    latents, labels = label_directions(latents, codes, [t.name for t in varying], values)
    directions, groups = attribute_means(fitted.means, manifest.attribute_names, fitted.annotations.attributes)
    tables, effects = probe_all(samples[0], samples[1], progress), _effects(context, scored)
    sentences = layer_sentences({"layers": [{"effect": effect} for effect in effects], **tables})
    findings = Findings(
        held_out=len(scored),
        layers=tuple(
            LayerFindings(effect=effect, sentence=f"Layer {layer} {sentence}", directions=names)
            for layer, (effect, sentence, names) in enumerate(zip(effects, sentences, labels, strict=True))
        ),
        targets=_target_findings(tables),
        attribute_directions=_direction_scores(directions, manifest.attribute_names, scored),
    )
    chosen = shown_faces(scored)
    config = model.config.model_copy(
        update={
            "attributes": tuple(directions),
            "groups": tuple(groups),
            "faces": len(chosen),
        }
    )
    return replace(
        model,
        config=config,
        latents=latents,
        attributes=directions,
        groups=groups,
        findings=findings,
        faces=scored.images[chosen],
    )


def _target_findings(tables: Tables) -> tuple[TargetFindings, ...]:
    return tuple(
        TargetFindings(
            kind=table.key.removesuffix("s"),  # pyright: ignore[reportArgumentType]
            name=name,
            score=table.unit,  # pyright: ignore[reportArgumentType]
            scores=tuple(score if np.isfinite(score) else None for score in row[table.score]),
            chance=row["chance"],
            best_layer=clear_leader(table, row),
        )
        for table in TABLES
        for name, row in tables[table.key].items()
    )


def _sample(context: EvalContext, encoded: Encoded) -> Sample:
    return Sample(list(all_targets(context, encoded)), [z.numpy() for z in encoded.means], encoded.annotations.identity)


def _effects(context: EvalContext, encoded: Encoded) -> list[float]:
    codes = [z[:EFFECT_IMAGES].to(context.device) for z in encoded.means]
    drawn = normal(torch.arange(len(codes[0])), sum(context.sizes), Stream.PRIOR, 1)
    return layer_effects(
        context.vlae, codes, [z.to(context.device) for z in split_layers(drawn, context.sizes)]
    ).tolist()


def _direction_scores(directions: dict[str, Any], names: Sequence[str], encoded: Encoded) -> dict[str, float]:
    """AUC of the position along each attribute's direction, in units of each layer's spread, on held-out images."""
    scores: dict[str, float] = {}
    scale = [z.var(0) + 1e-6 for z in encoded.means]
    for name, direction in directions.items():
        values = encoded.annotations.attributes[:, list(names).index(name)]
        known = values >= 0
        position = sum(
            ((z * d / s).sum(1) for z, d, s in zip(encoded.means, direction, scale, strict=True)), torch.zeros(1)
        )
        value = auc(values[known], position.numpy()[known]).value
        if np.isfinite(value):
            scores[name] = round(value, 4)
    return scores


def shown_faces(encoded: Encoded, count: int = SHOWN_FACES) -> np.ndarray:
    """Rows of held-out images that differ: each next one is the farthest from those before (of the first 400).

    Of those the tenth with the most unusual codes is passed over.
    """
    z = torch.cat([(m - m.mean(0)) / (m.std(0) + 1e-6) for m in encoded.means], 1)[:400]
    typical = z.pow(2).sum(1)
    allowed = typical <= typical.quantile(0.9)
    chosen = [int(typical.argmin())]
    distance = torch.full((len(z),), torch.inf)
    while len(chosen) < min(count, int(allowed.sum())):
        distance = torch.minimum(distance, (z - z[chosen[-1]]).pow(2).sum(1))
        chosen.append(int(torch.where(allowed, distance, torch.tensor(-1.0)).argmax()))
    return np.array(chosen)
