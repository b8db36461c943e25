"""Commands that measure: report, probe, encode."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from analysis.commands.arguments import (
    Align,
    Data,
    Model,
    Overwrite,
    existing_model,
    output_file,
    short_names,
    split_words,
)
from analysis.commands.terminal import show_progress
from analysis.model import REFINE_STEPS
from preprocess.errors import UsageError

QUICK_SAMPLES = 1000
TABLES = (".json", ".csv")
CODES = (".parquet", ".npz")


def report(
    checkpoints: Annotated[
        list[Path] | None, typer.Argument(metavar="[CKPT]...", help="ckpt.pt files; default: the newest run's.")
    ] = None,
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report; default: report/ beside the checkpoint.")
    ] = None,
    samples: Annotated[int, typer.Option(min=40, help="At most this many held-out images.")] = 20_000,
    quick: Annotated[bool, typer.Option("--quick", help=f"At most {QUICK_SAMPLES} held-out images.")] = False,
    fid: Annotated[
        bool, typer.Option("--fid", help="Also FID and KID on Inception's features; needs the extra fid.")
    ] = False,
    identity_codes: Annotated[
        Path | None,
        typer.Option(help="npz file of identity descriptors: name, (n,) image files, and code, (n, D) numbers."),
    ] = None,
) -> None:
    """Measures and draws everything into one page: index.html, metrics.json and the pictures."""
    paths = [_checkpoint(existing_model(str(path))) for path in checkpoints or [Path(existing_model(None))]]
    folder = out or paths[0].parent / "report"
    if folder.is_file():
        raise UsageError(f"--out {folder} is a file; name a folder")
    if (folder / "index.html").exists():
        print(f"note: the earlier report in {folder} will be replaced", file=sys.stderr)

    from analysis.inputs.context import open_context  # noqa: PLC0415
    from analysis.metrics.identity import read_identity_codes  # noqa: PLC0415
    from analysis.report.layer_summary import headline  # noqa: PLC0415
    from analysis.report.report import evaluate_checkpoint, write_report  # noqa: PLC0415

    codes = None if identity_codes is None else read_identity_codes(identity_codes)
    opened = [open_context(path, data) for path in paths]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass  # better now than after minutes of measuring
    limit = min(samples, QUICK_SAMPLES) if quick else samples
    reports: list = []
    classifiers: dict = {}
    with show_progress() as progress:
        for (context, warnings), name in zip(opened, short_names(paths), strict=True):
            _warn(warnings)
            done = evaluate_checkpoint(context, name, limit, progress, classifiers, fid, codes)
            _warn(note for note in done.notes if note.startswith("no FID"))
            done.notes += warnings
            reports.append(done)
        page = write_report(reports, folder)
    for done in reports:
        print(f"{done.name}, step {done.metrics['step']}", *headline(done.metrics), sep="\n  ")
    print(f"report: {page}")


def _warn(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        print(f"warning: {sentence}", file=sys.stderr)


def _checkpoint(model: str) -> Path:
    """The ckpt.pt that a report needs: it reads the run's log beside it and its shards."""
    path = Path(model)
    if (path / "ckpt.pt").is_file():
        return path / "ckpt.pt"
    if not path.is_file():
        raise UsageError(f"a report needs a ckpt.pt, and {model} is an export: `analysis explore {model}` shows it")
    return path


def probe(
    model: Model = None,
    data: Data = None,
    samples: Annotated[
        int, typer.Option(min=40, help="At most this many training images to fit on, and held-out ones to score on.")
    ] = 10_000,
    attribute: Annotated[
        list[str] | None, typer.Option("--attribute", "-a", help="Only this attribute, factor or label; repeatable.")
    ] = None,
    probe: Annotated[
        Literal["mlp", "linear"], typer.Option(help="mlp fits linear probes too; linear takes seconds.")
    ] = "mlp",
    out: Annotated[Path | None, typer.Option(help="Also write the table here: .json (with intervals) or .csv.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Prints how well each layer's code predicts each attribute, factor and label of held-out images."""
    source = existing_model(model)
    if out is not None:
        output_file(out, TABLES, overwrite)

    from analysis.commands.inputs import Inputs  # noqa: PLC0415
    from analysis.probes.probe import probe_context  # noqa: PLC0415
    from analysis.probes.table import print_tables, write_tables  # noqa: PLC0415

    context = Inputs.open(source, data).context()
    if context is None:
        raise UsageError("an export holds no annotated images to probe with: name shards with --data")
    linear = probe == "linear"
    with show_progress() as progress:
        tables = probe_context(context, samples, progress, attribute or (), linear)
    print_tables(tables, len(context.sizes), linear)
    if out is not None:
        write_tables(tables, len(context.sizes), out)
        print(out, file=sys.stderr)


def encode(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL] SOURCE", help="SOURCE is a folder of pictures or of shards, or a picture."),
    ] = None,
    out: Annotated[Path, typer.Option(help="A .parquet (needs the extra parquet) or .npz file.")] = Path("codes.npz"),
    split: Annotated[
        Literal["train", "valid", "test"] | None, typer.Option(help="Of shards, only this split; default: all.")
    ] = None,
    align: Align = "auto",
    refine: Annotated[
        int,
        typer.Option(min=0, help="Steps toward the codes that reconstruct best; 0 = the encoder's, ten times faster."),
    ] = REFINE_STEPS,
    overwrite: Overwrite = False,
) -> None:
    """Writes every picture's codes: one column per layer, beside ids, labels and splits. Resumes where it stopped."""
    source, files = split_words(words, (1,), folders=True)
    out = output_file(out, CODES, overwrite)

    from analysis.commands.inputs import Inputs  # noqa: PLC0415
    from analysis.export.codes import encode_all, find_images  # noqa: PLC0415

    images = find_images(files[0], split)
    with show_progress() as progress:
        done = encode_all(Inputs.open(source).ladder, images, align, refine, out, progress)
    for reason, names in done.left_out.items():
        listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        print(f"left out: {len(names)} ({reason}): {listed}", file=sys.stderr)
    print(f"{out}: codes of {done.count:,} images")
