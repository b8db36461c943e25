"""Opens a folder or an archive as what it is, recognized by content."""

from __future__ import annotations

from pathlib import Path

from preprocess.containers.container import Container
from preprocess.containers.file_kinds import refuse_file, type_of
from preprocess.containers.folder import FolderContainer
from preprocess.containers.tar_archive import TarContainer, is_tar
from preprocess.containers.zip_archive import ZipContainer
from preprocess.images.file_types import ZIP


def open_container(path: Path, deep: bool) -> Container:
    """Lists the images of a folder (and of the folders below it if `deep`), a zip archive or a tar archive.

    Raises:
        UsageError: it does not exist, is damaged, or is another kind of file; the message says what helps.
    """
    if path.is_dir():
        return FolderContainer(path, deep)
    if type_of(path) is ZIP:
        return ZipContainer(path)
    if is_tar(path):
        return TarContainer(path)
    raise refuse_file(path)
