"""Downloads CelebA and MNIST with torchvision's downloader and checksums.

Files are collected in a staging folder, which is renamed when all are complete. A later attempt keeps complete files.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable
from pathlib import Path

from preprocess.errors import UserError
from preprocess.shards.atomic import sync_folder

CELEBA_LICENSE = "CelebA is for non-commercial research only (mmlab.ie.cuhk.edu.hk/projects/CelebA.html)"
_WANTED = frozenset(
    (
        *("img_align_celeba.zip", "list_attr_celeba.txt", "list_eval_partition.txt", "identity_CelebA.txt"),
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

    drive = {name: identifier for identifier, _, name in CelebA.file_list}
    hint = (
        " (Google Drive often refuses with a quota page: try another day), or draw a substitute with "
        f"`preprocess faces --out {shlex.quote(str(folder))}`"
    )

    def fetch(staging: Path, name: str, md5: str) -> None:
        download_file_from_google_drive(drive[name], staging, name, md5)

    say(f"downloading CelebA to {folder}; {CELEBA_LICENSE}")
    return _fetch_all(folder, {name: md5 for _, md5, name in CelebA.file_list if name in _WANTED}, fetch, say, hint)


def download_mnist(folder: Path, say: Callable[[str], None]) -> Path:
    """Downloads MNIST's four files (12 MB) into `folder`, which must not exist or be empty.

    Raises:
        UserError: a file could not be downloaded; the message names the files and where to put them.
    """
    from torchvision.datasets import MNIST  # noqa: PLC0415 - brings torch
    from torchvision.datasets.utils import download_url  # noqa: PLC0415

    def fetch(staging: Path, name: str, md5: str) -> None:
        *others, last = MNIST.mirrors
        for mirror in others:
            with contextlib.suppress(OSError, RuntimeError):
                return download_url(mirror + name, str(staging), name, md5)
        return download_url(last + name, str(staging), name, md5)

    return _fetch_all(folder, dict(MNIST.resources), fetch, say)


def _fetch_all(
    folder: Path,
    files: dict[str, str],
    fetch: Callable[[Path, str, str], None],
    say: Callable[[str], None],
    hint: str = "",
) -> Path:
    """Fetches files (name -> MD5) into the staging folder, checks each, and renames the folder when all are there."""
    from torchvision.datasets.utils import check_integrity  # noqa: PLC0415 - brings torch

    staging = folder.with_name(f".{folder.name}-download")
    staging.mkdir(parents=True, exist_ok=True)
    for name, md5 in files.items():
        path = staging / name
        if check_integrity(path, md5):
            say(f"{name} is there already")
            continue
        path.unlink(missing_ok=True)
        problem = "its checksum is wrong"
        try:
            fetch(staging, name, md5)
        except Exception as error:  # the downloaders raise the errors of several libraries
            problem = " ".join(str(error).split()) or type(error).__name__
        if not check_integrity(path, md5):
            path.unlink(missing_ok=True)  # never keep what fails its checksum
            by_hand = f"put {', '.join(sorted(files))} into {folder} by hand"
            raise UserError(f"{name} could not be downloaded ({problem}); {by_hand}{hint}")
    staging.replace(folder)
    sync_folder(folder.parent)
    return folder
