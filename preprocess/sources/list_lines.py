"""The lines of an annotation file, cut into fields: its encoding and its separator are detected."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zipfile
from collections.abc import Iterator

from preprocess.containers.container import MAX_LIST_BYTES, refuse_long_list
from preprocess.errors import UsageError
from preprocess.images.file_types import GZIP, HEAD_BYTES, LFS_POINTER, TEXT, UNKNOWN, WEB_PAGE, ZIP, file_type

_MAX_LINE = 100_000
_SEPARATORS = (",", ";", "\t", "|")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_COUNT = re.compile(r"\s*\d[\d,.']*\s*")
_CONTROL = re.compile(r"[\0-\x08\x0e-\x1f]")


class Lines:
    """Line number and fields of each line that is not blank; there is at least one.

    Attributes:
        notes: lines for the terminal about the file's encoding.
    """

    def __init__(self, content: bytes, where: str) -> None:
        """Decodes the file and detects its separator.

        Raises:
            UsageError: the file is not text, is empty, or is a web page.
        """
        self.notes: tuple[str, ...] = ()
        self._where = where
        self._text = self._decode(content)
        self._first_lines = self._read_first_lines()
        first = self._first_lines[0] if self._first_lines else ""
        if not first or file_type(first.lstrip()[:HEAD_BYTES].encode()) is WEB_PAGE:
            what = "a web page, not an annotation file" if first else "empty"
            raise UsageError(f"{where} is {what}; download it again, or remove it to do without it")
        self._separator = _separator(self._first_lines)

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        """Yields (line number, fields).

        Raises:
            UsageError: a line is longer than a list's.
        """
        separator, begun = self._separator, False
        # one line at a time: a list of lines takes many times the text
        for number, line in enumerate(io.StringIO(self._text, newline=None), 1):
            if len(line) > _MAX_LINE:
                raise UsageError(
                    f"{self._where}, line {number} has more than {_MAX_LINE:,} characters: not a list of images"
                )
            if not line.strip() or (number == 1 and _stated_separator(line)):
                continue
            if line.startswith("#") and not begun:
                continue
            begun = True
            if separator is None:
                yield number, line.split()
                continue
            fields = [field.strip() for field in next(csv.reader([line], delimiter=separator))]
            if separator == ";":  # where the comma is taken for decimals
                fields = [field.replace(",", ".") if _DECIMAL_COMMA.fullmatch(field) else field for field in fields]
            if any(fields):
                yield number, fields

    def _decode(self, content: bytes) -> str:
        found = file_type(content[:HEAD_BYTES])
        if encoding := _wide_encoding(content):
            try:
                return content.decode(encoding).removeprefix("\ufeff")
            except UnicodeDecodeError:
                raise self._not_text(f"damaged {encoding.upper()} text") from None
        if found is LFS_POINTER:
            raise UsageError(f"{self._where} is {found.name}: {found.remedy}")
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = ""
        if content and (not text or "\0" in text):
            if found not in (TEXT, UNKNOWN):
                raise self._not_text("an Excel workbook or zip archive" if found is ZIP else found.name)
            text = content.decode("cp1252", "replace")
            if _CONTROL.search(text):
                raise self._not_text("not text")
            self.notes = (f"{self._where} is not UTF-8: read as Windows-1252; check names with accents",)
        return text

    def _not_text(self, what: str) -> UsageError:
        remedy = "save it as CSV" if "Excel" in what else "download it again, or save it as plain text"
        return UsageError(f"{self._where} is {what}, not a text file: {remedy}")

    def _read_first_lines(self) -> list[str]:
        """The first lines that are not blank: a count, a header, and two rows."""
        found: list[str] = []
        for line in io.StringIO(self._text, newline=None):
            if line.strip() and not (line.startswith("#") and not found):
                found.append(line.rstrip("\n"))
            if len(found) == 4:
                break
        return found


def unpacked_list(content: bytes) -> bytes:
    """The list in a gzip file or in a zip archive of one list, as Kaggle hands out single files; others are returned.

    At most `MAX_LIST_BYTES` + 1 bytes are unpacked, so that `refuse_long_list` refuses the rest.
    """
    found = file_type(content[:HEAD_BYTES])
    try:
        if found is GZIP:
            with gzip.open(io.BytesIO(content)) as file:
                content = file.read(MAX_LIST_BYTES + 1)
        elif found is ZIP:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                names = [name for name in archive.namelist() if name.lower().endswith((".txt", ".csv"))]
                if len(names) == 1:
                    with archive.open(names[0]) as file:
                        content = file.read(MAX_LIST_BYTES + 1)
    except Exception:  # zipfile raises nearly anything; the reader of lines says which file this is
        return content
    refuse_long_list(len(content), "an annotation file that is packed")
    return content


def _wide_encoding(content: bytes) -> str:
    """The name of the encoding where the file is UTF-16, with its mark or without, or UTF-32; otherwise ""."""
    if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    head = content[:HEAD_BYTES]
    if len(head) >= 8 and head.count(0) > len(head) // 3:
        if not any(head[::2][:64]):
            return "utf-16-be"
        if not any(head[1::2][:64]):
            return "utf-16-le"
    return ""


def _separator(lines: list[str]) -> str | None:
    """The separator of a list's fields; None where they are separated by blanks."""
    if stated := _stated_separator(lines[0]):
        return stated
    for line in lines[1:2] if _COUNT.fullmatch(lines[0]) else lines[:1]:  # the first may be the number of rows
        counts = {separator: line.count(separator) for separator in _SEPARATORS}
        best = max(_SEPARATORS, key=lambda separator: counts[separator])
        if not counts[best]:
            continue
        if best == "\t" and "\t\t" in line:
            return None  # columns that are aligned by runs of tabs
        return best
    return None


def _stated_separator(line: str) -> str:
    """The separator that Excel writes as `sep=;` into the first line."""
    text = line.strip().strip('"')
    return text[4:] if text.lower().startswith("sep=") and text[4:] in _SEPARATORS else ""
