"""Opens a folder or an archive as what it is, recognized by content."""

from __future__ import annotations

from pathlib import Path

from preprocess.containers.container import Container
from preprocess.containers.file_kinds import read_head, refuse_file
from preprocess.containers.folder import FolderContainer
from preprocess.containers.tar_archive import TarContainer, is_tar_header
from preprocess.containers.zip_archive import ZipContainer
from preprocess.errors import UsageError
from preprocess.images.file_types import BZIP2, GZIP, LZMA, TAR, UNKNOWN, XZ, ZIP, file_type


def open_container(path: Path, deep: bool) -> Container:
    """Lists the images of a folder, a zip archive or a tar archive.

    Args:
        path: the folder or archive.
        deep: whether images in folders below a folder count; in an archive they always do.

    Raises:
        UsageError: it does not exist, is damaged, or is another kind of file; the message says what helps.
    """
    if path.is_dir():
        return FolderContainer(path, deep)
    try:
        head = read_head(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    found = file_type(head)
    if found is ZIP:
        return ZipContainer(path)
    if found in (TAR, GZIP, BZIP2, XZ, LZMA) or (found is UNKNOWN and is_tar_header(head, path)):
        return TarContainer(path)
    raise refuse_file(path)
