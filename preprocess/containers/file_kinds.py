"""Which files are images, by name and then by content, and what a message says about the others."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from preprocess.errors import UsageError
from preprocess.images.file_types import EMPTY, HEAD_BYTES, TEXT, UNKNOWN, WEB_PAGE, FileType, file_type

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
SYSTEM_REASON = "thumbnails or notes of an operating system or NAS"
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")
UNREAD_ARCHIVE_SUFFIXES = (".7z", ".rar", ".7z.001", ".zip.001", ".z01", ".tar.zst", ".tzst", ".tar.lz4")
_PARQUET_SUFFIXES = (".parquet", ".parq", ".pq", ".parquet.gzip", ".parquet.gz", ".parquet.snappy", ".parquet.zstd")
LIST_SUFFIXES = frozenset((".txt", ".csv"))
_UNFINISHED = frozenset((".part", ".crdownload", ".download", ".partial", ".aria2"))
_ZIP_PART, _PART = re.compile(r"\.z[0-9]{2}"), re.compile(r"\.(?:[0-9]{2,3}|a[a-z]|part[0-9]+)")
_STRAY_BYTES = re.compile("[\udc80-\udcff]")  # as `surrogateescape` decodes them; JSON may hold other surrogates
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:)/+(.*)", re.DOTALL)


def printable(name: str) -> str:
    """A name with escapes for bytes that are not UTF-8 and for characters that would control a terminal."""
    text = _STRAY_BYTES.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", name)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def suffix_of(name: str) -> str:
    """The suffix of a file name in small letters."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a tenth of pathlib's time


def has_image_suffix(name: str) -> bool:
    """Whether a file name ends like that of an image."""
    return not name.startswith(".") and suffix_of(name) in IMAGE_SUFFIXES


def is_parquet_name(name: str) -> bool:
    """Whether a file name ends like that of a parquet file."""
    return name.lower().endswith(_PARQUET_SUFFIXES) and not name.startswith(".")


def ignored_folder(name: str) -> str:
    """Why a folder of this name is not read; "" where it is."""
    if name.lower() in _SYSTEM_FOLDERS:
        return SYSTEM_REASON
    return "a hidden folder" if name.startswith(".") else ""


def ignored_file(name: str) -> str:
    """Why a file of this name is not read; "" where it is."""
    if name.lower() in _SYSTEM_FILES:
        return SYSTEM_REASON
    if not name.startswith("."):
        return ""
    return "a macOS resource fork" if name.startswith("._") else "a hidden file"


def unread_picture(name: str, found: FileType) -> str:
    """Why a picture of this name, and this type by its content, cannot be read; "" where the decoder should try."""
    suffix = suffix_of(name)
    if suffix in _RAW_SUFFIXES or suffix in _OTHER_PICTURES:
        what = f"a camera's raw picture ({suffix})" if suffix in _RAW_SUFFIXES else f"a {suffix} picture"
        return f"{what}, which is not read: convert it to JPEG or PNG"
    unread = found.family == "picture" and found.remedy.startswith("convert")
    return f"{found.name}, which is not read: {found.remedy}" if unread else ""


def read_head(path: str | Path) -> bytes:
    """The first bytes of a file, for `file_type`.

    Raises:
        OSError: When it cannot be read.
    """
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a third of pathlib's time
        return file.read(HEAD_BYTES) or b""


def type_of(path: Path) -> FileType:
    """What a file is.

    Raises:
        UsageError: When it cannot be read.
    """
    try:
        return file_type(read_head(path))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def check_source(path: Path, option: str = "") -> Path:
    """The path of a folder or file that can be read, with `~` replaced; `option` names the option in messages.

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
        if found.is_file() or found.is_dir():
            if os.access(found, os.R_OK | (os.X_OK if found.is_dir() else 0)):
                return found
            problem = "cannot be read: Permission denied; make it readable for you"
        elif found.is_symlink():
            problem = f"is a link to {link_target(found)}, which does not exist"
        elif found.exists():
            problem = "is a pipe or a device: give a folder, an archive or parquet files"
        else:
            hint = "; patterns are not read: give the folder" if set("*?[") & set(str(path)) else ""
            problem = f"does not exist{hint}"
    except (OSError, RuntimeError, ValueError) as error:  # a name that is too long, a folder of another user
        problem = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    raise UsageError(f"{name} {problem}")


def link_target(link: str | Path) -> str:
    """What a link leads to, for messages."""
    return printable(os.readlink(link))  # noqa: PTH115 - DirEntry has no pathlib


def refuse_file(path: Path, damaged: bool = False) -> UsageError:
    """Says what a file is that was given as a source, or (`damaged`) that it is an archive that cannot be read."""
    found = type_of(path)
    folder, quoted = shlex.quote(str(path.parent)), shlex.quote(str(path))
    if advice := part_advice(path, found):
        return UsageError(f"{path} {advice}")
    if damaged or (found is UNKNOWN and path.name.lower().endswith((*ARCHIVE_SUFFIXES, ".parquet"))):
        kind = "zip archive" if damaged else f"{path.suffix[1:]} file"
        return UsageError(f"{path} is not a whole {kind}: it was cut short or damaged; download it again")
    if found is EMPTY:
        return UsageError(f"{path} is empty: download it again")
    if found.family == "archive":
        remedy = (found.remedy or "unpack it").replace("{path}", quoted)
        advice = f", which is not read: {remedy}, and give its folder"
    elif found.family == "picture":
        advice = f", one image and not a data set: give the folder of images ({folder})"
    elif found.family == "parquet":
        advice = f": make shards of it with `preprocess celeba --source {quoted}`"
    elif found.remedy:
        advice = f": {found.remedy}"
    elif found is TEXT:
        advice = f", not images: give the folder that holds the list and the images ({folder})"
    else:
        advice = ", not images: give a folder of images, a zip or tar archive, or parquet files"
    return UsageError(f"{path} is {found.name}{advice}")


def part_advice(path: Path, found: FileType) -> str:
    """What to do with one part of a split archive, or with a download that is not finished; "" for other files."""
    suffix = path.suffix.lower()
    if suffix in _UNFINISHED:
        return "is a download that has not finished: start it again"
    if _ZIP_PART.fullmatch(suffix) or (suffix == ".zip" and path.with_suffix(".z01").exists()):
        last = shlex.quote(str(path.with_suffix(".zip")))
        return f"is one part of a split zip archive: join the parts with `zip -s 0 {last} --out whole.zip`"
    if _PART.fullmatch(suffix) and (found.family != "archive" or not found.remedy):
        joined = shlex.quote(str(path.with_suffix("")))
        return f"looks like one part of a split archive: join the parts with `cat {joined}.* > {joined}`"
    return ""


def why_ignored(found: FileType) -> str:
    """Why a file that is not a picture is not used."""
    if found.family == "archive":
        return f"{found.name} inside the source: unpack it, or make shards of it alone"
    return f"{found.name}: {found.remedy}" if found.remedy and found is not WEB_PAGE else found.name
