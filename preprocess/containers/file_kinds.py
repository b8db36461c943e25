"""Which files of a folder or archive are images, and why the others are not used: by name first, then by content."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path, PurePosixPath

from preprocess.containers.container import Container, IgnoredFile, file_key, printable
from preprocess.errors import UsageError
from preprocess.images.file_types import EMPTY, HEAD_BYTES, PARQUET, TEXT, UNKNOWN, WEB_PAGE, FileType, file_type
from preprocess.shards.manifest import LeftOut

IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".heic", ".heif"),
    )
)
# most camera files begin like a TIFF and would be read as their small preview; the others cannot be recognized
_RAW_SUFFIXES = frozenset((".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".raf", ".srw", ".pef"))
_OTHER_PICTURES = frozenset((".tga", ".ico", ".pcx", ".xcf", ".dds", ".hdr"))
_SYSTEM_FOLDERS = frozenset(
    (
        *("@eadir", "@__thumb", "#recycle", "#snapshot", ".thumbnails", ".@__thumb", "__macosx", "$recycle.bin"),
        *("@recycle", "@tmp", "__pycache__", "system volume information", "lost+found", ".appledouble"),
        *(".picasaoriginals",),
    )
)
_SYSTEM_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store", "icon\r", ".picasa.ini"))
_SYSTEM_REASON = "thumbnails or notes of an operating system or NAS"
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")
PARQUET_SUFFIXES = (".parquet", ".parq", ".pq", ".parquet.gzip", ".parquet.gz", ".parquet.snappy", ".parquet.zstd")
LIST_SUFFIXES = frozenset((".txt", ".csv"))
UNREAD_ARCHIVE_SUFFIXES = (".7z", ".rar", ".7z.001", ".zip.001", ".z01", ".tar.zst", ".tzst", ".tar.lz4")
_UNFINISHED = frozenset((".part", ".crdownload", ".download", ".partial", ".aria2"))
_ZIP_PART, _PART = re.compile(r"\.z[0-9]{2}"), re.compile(r"\.(?:[0-9]{2,3}|a[a-z]|part[0-9]+)")
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:)/+(.*)", re.DOTALL)
_OF_NO_INTEREST = frozenset((TEXT.name, _SYSTEM_REASON, "a hidden file"))


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
    return f"{found.name}: {found.remedy}" if found.remedy and found is not WEB_PAGE else found.name


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
        if reason and link and not has_image_suffix(PurePosixPath(name).name):
            self.ignored.append(IgnoredFile(printable(name), reason))
        elif reason:
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
        return "a name that leaves the archive's folder: repack the archive with relative names"
    return "a link: repack the archive with the files themselves (tar -h)" if link else ""


def check_source(path: Path, option: str = "") -> Path:
    """The path of a folder or file that exists, with `~` replaced; `option` names the option in messages.

    Raises:
        UsageError: it is an address or a pattern, does not exist, is a link to nothing, or is a pipe or device.
    """
    name = option + printable(str(path))
    if address := _ADDRESS.match(str(path)):
        raise UsageError(
            f"{option}{address[1]}//{printable(address[2])} is an address, and sources are read from this machine: "
            "download it first, and give the folder or file"
        )
    try:
        found = path if path.exists() else path.expanduser()
        if (found.is_file() or found.is_dir()) and not os.access(found, os.R_OK | (os.X_OK if found.is_dir() else 0)):
            raise UsageError(f"{name} cannot be read: Permission denied; make it readable for you")
        if found.is_file() or found.is_dir():
            return found
        if found.is_symlink():
            target = printable(os.readlink(found))  # noqa: PTH115
            raise UsageError(f"{name} is a link to {target}, which does not exist")
        if found.exists():
            raise UsageError(f"{name} is a pipe or a device: give a folder, an archive or parquet files")
    except (OSError, RuntimeError, ValueError) as error:  # a name that is too long, a folder of another user
        raise UsageError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    hint = "; patterns are not read: give the folder" if set("*?[") & set(str(path)) else ""
    raise UsageError(f"{name} does not exist{hint}")


def no_images(source: Container, wanted: str = "", looked_for: str = "") -> UsageError:
    """Says that a source has no images (`wanted`: of a kind), what it has instead, and what was looked for."""
    path = source.path
    kinds: dict[str, tuple[str, int]] = {}
    files = [(file.name, file.reason, file.files) for file in source.ignored]
    for name, reason, number in [*((left.key, left.reason, 1) for left in source.left_out), *files]:
        first, count = kinds.get(reason, (name, 0))
        kinds[reason] = first, count + number
    if PARQUET.name in kinds:
        command = f"`preprocess celeba --source {shlex.quote(str(path))}`"
        return UsageError(f"{path} holds parquet files: make shards of them with {command}")
    by_use = sorted(kinds.items(), key=lambda kind: ("unpack" not in kind[0]) + (kind[0] in _OF_NO_INTEREST))
    some = [
        f"{first} {'' if reason.startswith('cannot') else 'is '}{reason}" + (f" (and {n - 1:,} more)" if n > 1 else "")
        for reason, (first, n) in by_use[:3]
    ]
    contents = ", ".join(some) if some else "it is empty"
    return UsageError(f"{path} holds no images{wanted}: {contents}{looked_for}")


def refuse_file(path: Path, damaged: bool = False) -> UsageError:
    """Says what a file is that was given as a source and cannot be read as one.

    Args:
        path: of the file.
        damaged: whether it is an archive that could not be read.
    """
    found = file_type(read_head(path))
    folder, quoted = shlex.quote(str(path.parent)), shlex.quote(str(path))
    if advice := part_advice(path, found):
        pass
    elif found is EMPTY:
        advice = "is empty: download it again"
    elif damaged or (found is UNKNOWN and path.name.lower().endswith((*ARCHIVE_SUFFIXES, ".parquet"))):
        kind = "zip archive" if damaged else f"{path.suffix[1:]} file"
        advice = f"is not a whole {kind}: it was cut short or damaged; download it again"
    elif found.family == "archive":
        remedy = found.remedy or "unpack it"
        advice = f"is {found.name}, which is not read: {remedy.replace('{path}', quoted)}, and give its folder"
    elif found.family == "picture":
        advice = f"is {found.name}, one image and not a data set: give the folder of images ({folder})"
    elif found.family == "parquet":
        advice = f"is {found.name}: make shards of it with `preprocess celeba --source {quoted}`"
    elif found.remedy:
        advice = f"is {found.name}: {found.remedy}"
    elif found is TEXT:
        advice = f"is {found.name}, not images: give the folder that holds the list and the images ({folder})"
    else:
        advice = f"is {found.name}, not images: give a folder of images, a zip or tar archive, or parquet files"
    return UsageError(f"{path} {advice}")


def part_advice(path: Path, found: FileType) -> str:
    """What to do with one part of a split archive, or with a download that is not finished; "" for other files."""
    suffix, whole = path.suffix.lower(), path.with_suffix("")
    if suffix in _UNFINISHED:
        return "is a download that has not finished: start it again"
    if _ZIP_PART.fullmatch(suffix) or (suffix == ".zip" and path.with_suffix(".z01").exists()):
        last = shlex.quote(str(path.with_suffix(".zip")))
        return f"is one part of a split zip archive: join the parts with `zip -s 0 {last} --out whole.zip`"
    if _PART.fullmatch(suffix) and (found.family != "archive" or not found.remedy):
        joined = shlex.quote(str(whole))
        return f"looks like one part of a split archive: join the parts with `cat {joined}.* > {joined}`"
    return ""
