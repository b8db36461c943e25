"""Which files of a folder or archive are images, and why the others are not used: by name first, then by content."""

from __future__ import annotations

import os
import shlex
from pathlib import Path, PurePosixPath

from preprocess.containers.container import IgnoredFile, file_key, printable
from preprocess.errors import UsageError
from preprocess.images.file_types import EMPTY, HEAD_BYTES, TEXT, UNKNOWN, FileType, file_type
from preprocess.shards.manifest import LeftOut

IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2"),
    )
)
# most camera files begin like a TIFF and would be read as their small preview; the others cannot be recognized
_RAW_SUFFIXES = frozenset((".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".raf", ".srw", ".pef"))
_OTHER_PICTURES = frozenset((".tga", ".ico", ".pcx", ".xcf", ".dds", ".hdr"))
_SYSTEM_FOLDERS = frozenset(
    (
        *("@eadir", "@__thumb", "#recycle", "#snapshot", ".thumbnails", ".@__thumb", "__macosx", "$recycle.bin"),
        *("system volume information", "lost+found", ".appledouble", ".picasaoriginals"),
    )
)
_SYSTEM_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store", "icon\r", ".picasa.ini"))
_SYSTEM_REASON = "thumbnails or notes of an operating system or NAS"
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")
PARQUET_SUFFIXES = (".parquet", ".parq", ".pq")
LIST_SUFFIXES = frozenset((".txt", ".csv"))
UNREAD_ARCHIVE_SUFFIXES = (".7z", ".rar", ".7z.001", ".zip.001", ".tar.zst")


def has_image_suffix(name: str) -> bool:
    """Whether a file name ends like that of an image."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122


def is_parquet_name(name: str) -> bool:
    """Whether a file name ends like that of a parquet file."""
    return name.lower().endswith(PARQUET_SUFFIXES) and not name.startswith(".")


def ignored_folder(name: str) -> str:
    """Why a folder of this name is not read; "" where it is."""
    if name.lower() in _SYSTEM_FOLDERS:
        return _SYSTEM_REASON
    return "a hidden folder" if name.startswith(".") else ""


def ignored_file(name: str) -> str:
    """Why a file of this name is not read; "" where it is."""
    if name.startswith("._"):
        return "a macOS resource fork"
    if name.lower() in _SYSTEM_FILES:
        return _SYSTEM_REASON
    return "a hidden file" if name.startswith(".") else ""


def unread_picture(name: str, found: FileType | None) -> str:
    """Why a picture of this name or type cannot be read at all; "" where the decoder should try.

    Args:
        name: of the file; camera files are known by it.
        found: what the file's first bytes say; None where they were not looked at.
    """
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
    if suffix in _RAW_SUFFIXES:
        return f"a camera's raw picture ({suffix}), which is not read: convert it to JPEG or PNG"
    if suffix in _OTHER_PICTURES:
        return f"a {suffix} picture, which is not read: convert it to JPEG or PNG"
    if found and found.family == "picture" and found.remedy.startswith("convert"):
        return f"{found.name}, which is not read: {found.remedy}"
    return ""


def why_ignored(found: FileType) -> str:
    """Why a file that is not a picture is not used."""
    if found.family == "archive":
        return f"{found.name} inside the source: unpack it, or make shards of it alone"
    return found.name


def read_head(path: str | Path) -> bytes:
    """The first bytes of a file, for `file_type`.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a third of pathlib's time
        return file.read(HEAD_BYTES) or b""


class Members:
    """The members of an archive, sorted into images, lists and the rest while it is listed."""

    def __init__(self) -> None:
        """Starts without members."""
        self.left_out: list[LeftOut] = []
        self.ignored: list[IgnoredFile] = []

    def refuse(self, name: str, link: bool) -> bool:
        """Whether a member is not read for its name or because it is a link; it is then counted."""
        reason = _unsafe_reason(name, link)
        if reason:
            self.left_out.append(LeftOut(key=printable(name)[:100], reason=reason))
        return bool(reason)

    def is_image(self, name: str, head: bytes | None) -> bool:
        """Whether a member is an image; otherwise it is counted as what it is.

        Args:
            name: with slashes.
            head: its first bytes; None where the name says enough.
        """
        *folders, file_name = PurePosixPath(name).parts
        reason = next(filter(None, map(ignored_folder, folders)), "") or ignored_file(file_name)
        if reason:
            self.ignored.append(IgnoredFile(printable(name), reason))
            return False
        if head is None:
            return True
        found = file_type(head)
        if reason := unread_picture(file_name, found):
            self.left_out.append(LeftOut(key=file_key(name), reason=reason))
        elif found.family != "picture":
            self.ignored.append(IgnoredFile(printable(name), why_ignored(found)))
        return not reason and found.family == "picture"


def _unsafe_reason(name: str, link: bool) -> str:
    """Why a member is not read, or "". No name is used as a path, but a regular archive has neither."""
    member = PurePosixPath(name)
    if member.is_absolute() or ".." in member.parts:
        return "a name that leaves the archive's folder: do not unpack it"
    return "a link: repack the archive with the file itself" if link else ""


def refuse_file(path: Path) -> UsageError:
    """Says what a file is that was given as a source and cannot be read as one."""
    found = file_type(read_head(path))
    folder, quoted = shlex.quote(str(path.parent)), shlex.quote(str(path))
    named_archive = path.name.lower().endswith((*ARCHIVE_SUFFIXES, ".parquet"))
    part = path.suffix[1:].isdecimal() or path.suffix.lower() in {".z01", ".part"}
    if part and not found.remedy:
        whole = shlex.quote(str(path.with_suffix("")))
        advice = f"looks like one part of a split archive: join the parts with `cat {whole}.* > {whole}`"
    elif found is EMPTY:
        advice = "is empty: download it again"
    elif found.family == "archive":
        advice = f"is {found.name}, which is not read: {found.remedy.replace('{path}', quoted)}, and give its folder"
    elif found.family == "picture":
        advice = f"is {found.name}, one image and not a data set: give the folder of images ({folder})"
    elif found.family == "parquet":
        advice = f"is {found.name}: make shards of it with `preprocess celeba --source {quoted}`"
    elif found.remedy:
        advice = f"is {found.name}: {found.remedy}"
    elif found is UNKNOWN and named_archive:
        advice = f"is not a whole {path.suffix[1:]} file: it was cut short or damaged; download it again"
    elif found is TEXT:
        advice = f"is {found.name}, not images: give the folder that holds the list and the images ({folder})"
    else:
        advice = f"is {found.name}, not images: give a folder of images, a zip or tar archive, or parquet files"
    return UsageError(f"{path} {advice}")
