"""What the commands share: which model is meant, which files are named, where a result goes. Imports nothing heavy."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.model.weights import pretrained_names
from preprocess.errors import UsageError

DEFAULT_PRETRAINED = "photos64"
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
_CHECKPOINTS = (".pt", ".pth", ".ckpt")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
MODEL_HELP = (
    "MODEL is a ckpt.pt, a run's folder, an export, a pretrained model's name or OWNER/NAME on the Hugging Face Hub; "
    "default: the newest run under runs/, else the pretrained model."
)

Model = Annotated[str | None, typer.Argument(metavar="[MODEL]", help=MODEL_HELP)]
Data = Annotated[Path | None, typer.Option(help="Folder of shards; default: the one trained on.")]
Layer = Annotated[int | None, typer.Option(help="Only this layer, 0 = bottom.")]
Seed = Annotated[int, typer.Option(min=0, help="Of what is drawn at random.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what --out names.")]
Align = Annotated[
    Literal["auto", "on", "off"],
    typer.Option(help="Find the face and turn it upright; auto: where the picture is not composed as in training."),
]
PictureOut = Annotated[Path | None, typer.Option(help="The picture to write: .png, .jpg or .webp.")]


def is_model(word: str) -> bool:
    """Whether a word on the command line names a model rather than a picture."""
    path = Path(word)
    if word in pretrained_names() or path.suffix.lower() in _CHECKPOINTS:
        return True
    if path.is_dir():
        return (path / "config.json").is_file() or (path / "ckpt.pt").is_file()
    return bool(_HUB_ID.fullmatch(word)) and not path.exists() and not path.parent.is_dir() and not path.suffix


def split_words(words: Sequence[str] | None, counts: Collection[int], folders: bool = False) -> tuple[str, list[Path]]:
    """Separates the model from the files on a command line: MODEL comes first and may be left out.

    Args:
        words: As given.
        counts: How many files the command takes.
        folders: Whether a folder is taken, too.

    Raises:
        UsageError: When another number of files is named, a file is not there, or a folder is not taken.
    """
    rest = list(words or ())
    model = rest.pop(0) if rest and is_model(rest[0]) else None
    for word in rest:
        if re.match(r"\w+://", word) and not Path(word).exists():
            raise UsageError(f"there is no file {word}; download it first: only files on this machine are read")
        if not Path(word).exists():
            raise UsageError(f"there is no file {word}{_nearest_model(word, 'did you mean the model')}")
        if Path(word).is_dir() and not folders:
            raise UsageError(f"{word} is a folder; name a picture in it")
    if len(rest) not in counts:
        wanted = " or ".join(str(count) for count in sorted(counts) if count)
        none = ", or none for held-out images" if 0 in counts else ""
        raise UsageError(
            f"{len(rest)} {'folders or pictures' if folders else 'pictures'} were named: name {wanted}{none}"
        )
    return existing_model(model), [Path(word) for word in rest]


def _nearest_model(word: str, question: str) -> str:
    """A question at the end of a message where the word looks like a pretrained model's name, else ''."""
    near = difflib.get_close_matches(word, pretrained_names(), n=1)
    return f"; {question} {near[0]}?" if near else ""


def existing_model(model: str | None, pretrained_first: bool = False) -> str:
    """The model that was named, else the newest run or the pretrained model, which is said on the terminal.

    Args:
        model: As named; None = not named.
        pretrained_first: Whether the pretrained model comes before runs.

    Raises:
        UsageError: When there is no such model, or none was named and none is found.
    """
    if model is not None:
        path = Path(model)
        if path.is_dir() and not is_model(model):
            raise UsageError(f"{model} holds neither the config.json of an export nor the ckpt.pt of a run")
        if path.suffix.lower() in _CHECKPOINTS and not path.exists():
            raise UsageError(f"there is no checkpoint {model}")
        if not is_model(model) and not path.is_file():
            raise UsageError(f"there is no model {model}{_nearest_model(model, 'did you mean')}")
        return model
    runs = sorted(Path("runs").glob("*/ckpt.pt"), key=lambda path: path.stat().st_mtime)
    if DEFAULT_PRETRAINED in pretrained_names() and (pretrained_first or not runs):
        print(f"model: {DEFAULT_PRETRAINED}, which comes with mmd-vlae", file=sys.stderr)
        return DEFAULT_PRETRAINED
    if not runs:
        raise UsageError("there is no runs/*/ckpt.pt here; name a checkpoint or an exported folder")
    others = f", the newest of {len(runs)} runs" if len(runs) > 1 else ""
    print(f"model: {runs[-1]}{others}", file=sys.stderr)
    return str(runs[-1])


def output_file(out: Path, suffixes: Sequence[str], overwrite: bool) -> Path:
    """Checks where a file is to be written, before anything is computed.

    Args:
        out: The file.
        suffixes: The endings that its name may have.
        overwrite: Whether it may be there already.

    Raises:
        UsageError: When it is a folder, another kind of file, there already, or cannot be written.
    """
    if out.is_dir() or str(out).endswith("/"):
        raise UsageError(f"--out {out} is a folder; name a file in it, such as {out / f'result{suffixes[0]}'}")
    if out.suffix.lower() not in suffixes:
        raise UsageError(f"--out {out}: the file's name must end with {', '.join(suffixes)}")
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists already; name another file with --out, or replace it with --overwrite")
    return _writable(out)


def output_folder(out: Path, overwrite: bool) -> Path:
    """Checks a folder that is to be filled; with ``overwrite`` it may hold something.

    Raises:
        UsageError: When it is a file, holds something, or cannot be written.
    """
    if out.is_file():
        raise UsageError(f"--out {out} is a file; name a folder")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise UsageError(f"{out} is not empty; name another folder with --out, or replace its files with --overwrite")
    return _writable(out)


def _writable(out: Path) -> Path:
    """Checks that ``out`` can be made, before minutes of work."""
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise UsageError(f"--out {out}: {folder} is a file")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"--out {out}: the folder {folder} cannot be written to")
    return out


def is_picture(out: Path) -> bool:
    """Whether --out names a picture rather than a folder."""
    return out.suffix.lower() in PICTURES and not out.is_dir()


def chosen_layers(only: int | None, depth: int) -> list[int]:
    """The layers that --layer asks for: one, or all.

    Raises:
        UsageError: When the model, of ``depth`` layers, has no such layer.
    """
    if only is not None and not 0 <= only < depth:
        raise UsageError(f"--layer {only}: the model has layers 0 to {depth - 1}")
    return list(range(depth)) if only is None else [only]


def short_names(paths: Sequence[Path]) -> list[str]:
    """A short distinct name of each checkpoint: its folder, with its file where that is needed."""
    folders = [_plain(path.resolve().parent.name) for path in paths]
    files = [f"{folder}-{_plain(path.stem)}" for folder, path in zip(folders, paths, strict=True)]
    numbered = [f"{number}-{name}" for number, name in enumerate(files)]
    return next(names for names in (folders, files, numbered) if len(set(names)) == len(names))


def _plain(name: str) -> str:
    """The name with '_' for characters that are not safe in a file name."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)
