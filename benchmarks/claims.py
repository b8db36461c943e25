"""The claims about what the layers learn, each with its figure and its bar: holds, or does not.

python benchmarks/claims.py --mnist FOLDER_WITH_IDX_FILES --faces [--kl] [--seeds 0,1,2] [--work DIR]

Everything is made by the public commands: shards, a training run a seed by the recipes mnist and faces, a report each.
What is in --work already is not made again (its runs are resumed).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CPU = REPOSITORY / "launch/accelerate/cpu-1.yaml"  # one process on all cores: 1.4 times as fast as two of one core
LOWEST_TWO = ("light_direction", "brightness", "white_balance", "background")
HIGHEST_TWO = ("yaw", "tilt", "smile", "open_mouth")
PAIRS = (("Male", "Pale_Skin"), ("Male", "Smiling"), ("Male", "Eyeglasses"))  # chosen before looking: PAIRS[1:]
MOST_SECONDS = 15 * 60
FACES_DRAWN = 30_000  # of the demo's 12,000 a run of this length learns some by heart: its gap was 0.11
READERS = ("", "_linear")  # MLP, linear

SHORT = "training.steps=1500"
# 400 times a mean over 12,288 values is the likelihood of a Gaussian of variance 1 with the KL at 0.065; the cap on the
# deviation is the MMD's, whose optimum is elsewhere; 1 is a KL that wins over small features
KL = ("objective.regularizer=kl", "model.max_std=1")
REGULARIZERS = {
    "mmd": (),
    "kl-0.065": (*KL, "objective.regularizer_weight=0.065"),
    "kl-1": (*KL, "objective.regularizer_weight=1"),
}

Metrics = dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """A figure of one run's metrics.json and the bar that it has to reach."""

    text: str
    figure: Callable[[Metrics], float]
    bar: float
    at_most: bool = False

    def holds(self, value: float) -> bool:
        return value <= self.bar if self.at_most else value >= self.bar


def effects(metrics: Metrics) -> list[float]:
    return [layer["effect"] for layer in metrics["layers"]]


def best_accuracy(metrics: Metrics) -> list[float]:
    """Digit accuracy of each layer, bottom first, then of all, by the best of the readers."""
    row = metrics["labels"]["label"]
    readers = ([*row[key], row[f"{key}_all"]] for key in (f"accuracy{reader}" for reader in READERS))
    return [max(read) for read in zip(*readers, strict=True)]


def lead(values: Sequence[float], index: int) -> float:
    """How far one value is above the best of the others."""
    return values[index] - max(value for i, value in enumerate(values) if i != index % len(values))


def thickness_lead(metrics: Metrics) -> float:
    return lead(metrics["factors"]["stroke_thickness"]["r2"], 0)


def r2_all(metrics: Metrics) -> dict[str, float]:
    """R² of each factor from all layers together, by the best of the readers."""
    return {name: max(row[f"r2{reader}_all"] for reader in READERS) for name, row in metrics["factors"].items()}


def known_by(names: Sequence[str], layers: Sequence[int]) -> Callable[[Metrics], float]:
    """Share of ``names`` whose best layer, clearly above chance, is one of ``layers``."""

    def figure(metrics: Metrics) -> float:
        rows = [metrics["factors"][name] for name in names]
        return sum(row["best_layer_significant"] and row["best_layer"] in layers for row in rows) / len(rows)

    return figure


def arithmetic(pair: tuple[str, str], key: str) -> Callable[[Metrics], float]:
    """``key`` of a pair over its ceiling; 0 if the classifier is not reliable or nothing reaches the ceiling."""

    def figure(metrics: Metrics) -> float:
        found = [p for p in metrics["arithmetic"]["pairs"] if (p["s"], p["t"]) == pair]
        return (
            found[0][key] / found[0]["reconstruction_ceiling"] if found and found[0]["reconstruction_ceiling"] else 0.0
        )

    return figure


MNIST = (
    Claim("no dead layer: smallest effect", lambda m: min(effects(m)), 0.15),
    Claim("digit from the top layer's two numbers, accuracy", lambda m: best_accuracy(m)[-2], 0.65),
    Claim("… above any other layer's by", lambda m: lead(best_accuracy(m)[:-1], -1), 0.15),
    Claim("digit from all six numbers, accuracy", lambda m: best_accuracy(m)[-1], 0.93),
    Claim("thickness: R² of the bottom layer above any other's by", thickness_lead, 0),
    Claim("training time, seconds", lambda m: m["seconds"], MOST_SECONDS, at_most=True),
)
FACES = (
    Claim("no dead layer: smallest effect", lambda m: min(effects(m)), 0.15),
    Claim(f"{', '.join(LOWEST_TWO)}: share known best by the lowest two layers", known_by(LOWEST_TWO, (0, 1)), 1),
    Claim(f"{', '.join(HIGHEST_TWO)}: share known best by the highest two layers", known_by(HIGHEST_TWO, (2, 3)), 1),
    Claim("R² from all layers, smallest of all factors", lambda m: min(r2_all(m).values()), 0.7),
    Claim("share of factors with R² ≥ 0.7", lambda m: sum(v >= 0.7 for v in r2_all(m).values()) / len(r2_all(m)), 1),
    Claim("valid L1 above train L1 by", lambda m: m["memorization"]["generalization_gap"], 0.1, at_most=True),
    *(
        Claim(f"a − b + c, not {s} & {t}: success over its ceiling", arithmetic((s, t), "success"), 0.8)
        for s, t in PAIRS
    ),
    *(
        Claim(f"… {s} & {t}, {how}", arithmetic((s, t), key), 0.8)
        for key, how in (("success_plain", "the bare sum"), ("success_direction", "the direction alone"))
        for s, t in PAIRS
    ),
    Claim("training time, seconds", lambda m: m["seconds"], MOST_SECONDS, at_most=True),
)


def call(*words: object) -> None:
    """One public command; its own words on a failure, and the end of this one."""
    program, *rest = [str(word) for word in words]
    done = subprocess.run([BIN / program, *rest], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        raise SystemExit(f"{program} {rest[0]} failed")


def measured(recipe: str, shards: Path, run: Path, seed: int, *overrides: str) -> Metrics:
    """metrics.json of a run of ``recipe``, trained and reported where that has not been done, with its ``seconds``.

    Those of a run that was interrupted and resumed here are of its last part only.
    """
    clock = run / "seconds"
    if not clock.exists():
        begin = time.monotonic()
        how = ("--config_file", CPU, "--main_process_port", 0, "pipeline/train.py")
        what = ("--recipe", f"launch/recipes/{recipe}.yaml", "--data", shards, "--out", run, "--seed", seed)
        call("accelerate", "launch", *how, *what, *overrides)
        clock.write_text(f"{time.monotonic() - begin:.0f}")
    if not (run / "report/metrics.json").exists():
        call("analysis", "report", run / "ckpt.pt", "--data", shards)
    return {**json.loads((run / "report/metrics.json").read_text()), "seconds": float(clock.read_text())}


def rows(title: str, claims: Sequence[Claim], runs: Sequence[Metrics]) -> Iterator[tuple[str, ...]]:
    """One row a claim: it holds when it holds for every seed."""
    for claim in claims:
        values = [claim.figure(metrics) for metrics in runs]
        figure = ", ".join(f"{value:.0f}" if claim.bar > 100 else f"{value:.2f}" for value in values)
        verdict = "holds" if all(claim.holds(value) for value in values) else "does not hold"
        yield title, claim.text, figure, f"{'≤' if claim.at_most else '≥'} {claim.bar:g}", verdict


def regularizers(runs: dict[str, Metrics]) -> Table:
    """MMD beside KL at equal training: why the paper replaced the one by the other."""
    headings = ("active units", "effects", "mean R², all layers", "valid L1 of [0, 1]", "MMD² to the prior", "KID")
    table = Table("regularizer", *headings, title="Drawn faces")
    for name, metrics in runs.items():
        layers = metrics["layers"]
        units, dim = (sum(layer[key] for layer in layers) for key in ("active_units", "dim"))
        known = r2_all(metrics)
        effect = ", ".join(f"{value:.2f}" for value in effects(metrics))
        figures = (f"{sum(known.values()) / len(known):.2f}", f"{metrics['reconstruction']['valid']['l1']:.4f}")
        apart = ", ".join(f"{layer['mmd']:.4f}" for layer in layers)
        kid = f"{metrics['sample_quality']['kid_classifier_features']:.2f}"
        table.add_row(name, f"{units} of {dim}", effect, *figures, apart, kid)
    return table


def main(
    mnist: Annotated[Path | None, typer.Option(help="Folder with MNIST's IDX files.")] = None,
    faces: Annotated[bool, typer.Option("--faces", help="Drawn faces.")] = False,
    kl: Annotated[
        bool, typer.Option("--kl", help="Also train on the faces with MMD and with KL, shortly, seed 0.")
    ] = False,
    seeds: Annotated[str, typer.Option(help="Separated by commas.")] = "0,1,2",
    work: Annotated[Path, typer.Option(help="Shards, runs and reports are kept here.")] = Path("runs/claims"),
) -> None:
    """Prints which claims hold."""
    if mnist is None and not (faces or kl):
        raise SystemExit("nothing to do: name --mnist FOLDER, --faces or --kl")
    numbers = [int(seed) for seed in seeds.split(",")]
    work = work.resolve()
    console = Console(width=None if sys.stdout.isatty() else 150)
    table = Table("data", "claim", f"figure (seeds {seeds})", "bar", "", title="Claims")
    if mnist is not None:
        call("preprocess", "mnist", "--source", mnist.resolve(), "--out", work / "mnist")
        runs = [measured("mnist", work / "mnist", work / f"mnist-{seed}", seed) for seed in numbers]
        for row in rows("MNIST", MNIST, runs):
            table.add_row(*row)
    if faces or kl:
        call("preprocess", "faces", "--out", work / "faces-tree", "--count", FACES_DRAWN, "--seed", 0)
        call("preprocess", "celeba", "--source", work / "faces-tree", "--out", work / "faces")
    if faces:
        runs = [measured("faces", work / "faces", work / f"faces-{seed}", seed) for seed in numbers]
        for row in rows("drawn faces", FACES, runs):
            table.add_row(*row)
    console.print(table)
    if kl:
        short = {
            name: measured("faces", work / "faces", work / f"faces-{name}", 0, SHORT, *overrides)
            for name, overrides in REGULARIZERS.items()
        }
        console.print(regularizers(short))


if __name__ == "__main__":
    typer.run(main)
