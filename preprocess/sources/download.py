"""Downloads CelebA and MNIST with torchvision's downloader and checksums.

Files are collected in a staging folder, which is renamed when all are complete. A later attempt keeps complete files.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path

from preprocess.errors import UserError
from preprocess.shards.atomic import sync_folder

CELEBA_LICENSE = "CelebA is for non-commercial research only (mmlab.ie.cuhk.edu.hk/projects/CelebA.html)"
_WANTED = frozenset(
    (
        "img_align_celeba.zip",
        "list_attr_celeba.txt",
        "list_eval_partition.txt",
        "identity_CelebA.txt",
        "list_landmarks_align_celeba.txt",
    )
)


def download_celeba(folder: Path, say: Callable[[str], None]) -> Path:
    """Downloads the aligned images and their lists (1.4 GB) into `folder`, which must not exist or be empty.

    Raises:
        UserError: a file could not be downloaded; the message names the files, where to put them, and the substitute.
    """
    from torchvision.datasets import CelebA  # noqa: PLC0415 - brings torch
    from torchvision.datasets.utils import download_file_from_google_drive  # noqa: PLC0415

    files = [entry for entry in CelebA.file_list if entry[2] in _WANTED]

    def fetch(staging: Path, name: str, identifier: str, md5: str) -> None:
        download_file_from_google_drive(identifier, staging, name, md5)

    say(f"downloading CelebA to {folder}; {CELEBA_LICENSE}")
    try:
        return _fetch_all(folder, [(name, identifier, md5) for identifier, md5, name in files], fetch, say)
    except UserError as error:
        raise UserError(
            f"{error}; put {', '.join(sorted(name for *_, name in files))} into {folder} by hand (Google Drive often "
            "refuses with a quota page: try another day), or draw a substitute with `preprocess faces --out "
            f"{shlex.quote(str(folder))}`"
        ) from error


def download_mnist(folder: Path, say: Callable[[str], None]) -> Path:
    """Downloads MNIST's four files (12 MB) into `folder`, which must not exist or be empty.

    Raises:
        UserError: a file could not be downloaded; the message names the files and where to put them.
    """
    from torchvision.datasets import MNIST  # noqa: PLC0415 - brings torch
    from torchvision.datasets.utils import download_url  # noqa: PLC0415

    def fetch(staging: Path, name: str, mirrors: str, md5: str) -> None:
        *others, last = mirrors.split()
        for mirror in others:
            with contextlib.suppress(OSError, RuntimeError):
                return download_url(mirror + name, str(staging), name, md5)
        return download_url(last + name, str(staging), name, md5)

    files = [(name, " ".join(MNIST.mirrors), md5) for name, md5 in MNIST.resources]
    try:
        return _fetch_all(folder, files, fetch, say)
    except UserError as error:
        names = ", ".join(name for name, *_ in files)
        raise UserError(f"{error}; put {names} into {folder} by hand") from error


def _fetch_all(
    folder: Path,
    files: Iterable[tuple[str, str, str]],
    fetch: Callable[[Path, str, str, str], None],
    say: Callable[[str], None],
) -> Path:
    """Fetches (name, where, md5) each into the staging folder, checked, and renames that when all are there."""
    from torchvision.datasets.utils import check_integrity  # noqa: PLC0415 - brings torch

    staging = folder.with_name(f".{folder.name}-download")
    staging.mkdir(parents=True, exist_ok=True)
    for name, where, md5 in files:
        path = staging / name
        if check_integrity(path, md5):
            say(f"{name} is there already")
            continue
        path.unlink(missing_ok=True)
        problem = "its checksum is wrong"
        try:
            fetch(staging, name, where, md5)
        except Exception as error:  # the downloaders raise the errors of several libraries
            problem = " ".join(str(error).split()) or type(error).__name__
        if not check_integrity(path, md5):
            path.unlink(missing_ok=True)  # never keep what fails its checksum
            raise UserError(f"{name} could not be downloaded ({problem})")
    staging.replace(folder)
    sync_folder(folder.parent)
    return folder
