"""The lines of an annotation file, cut into fields: its encoding and its separator are detected."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
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
_BYTE_ORDER_MARKS = {  # UTF-32's begins like UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_lines(content: bytes, where: str) -> tuple[Iterator[tuple[int, list[str]]], list[str]]:
    """Decodes an annotation file and cuts its lines into fields.

    Returns:
        Line number and fields of each line that is not blank, at least one; and notes about the file's encoding.

    Raises:
        UsageError: the file is not text, is empty, or is a web page; while it is read, a line is longer than a list's.
    """
    text, notes = _decode(content, where)
    lines = _lines(text, where)
    first = list(itertools.islice(lines, 2))
    if not first or file_type(first[0][1].lstrip()[:HEAD_BYTES].encode()) is WEB_PAGE:
        what = "a web page, not an annotation file" if first else "empty"
        raise UsageError(f"{where} is {what}; download it again, or remove it to do without it")
    stated = first[0][1].strip().strip('"')  # Excel writes `sep=;` into the first line
    if stated.lower().startswith("sep=") and stated[4:] in _SEPARATORS:
        return _fields(itertools.chain(first[1:], lines), stated[4:]), notes
    header = first[-1 if _COUNT.fullmatch(first[0][1]) else 0][1]  # the first may be the number of rows
    return _fields(itertools.chain(first, lines), _separator(header)), notes


def _lines(text: str, where: str) -> Iterator[tuple[int, str]]:
    """Yields one line at a time, because a list of lines takes many times the text."""
    begun = False
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if len(line) > _MAX_LINE:
            raise UsageError(f"{where}, line {number} has more than {_MAX_LINE:,} characters: not a list of images")
        if line.strip() and (begun or not line.startswith("#")):
            begun = True
            yield number, line


def _separator(header: str) -> str | None:
    """The separator of a list's fields; None where they are separated by blanks, or aligned by runs of tabs."""
    best = max(_SEPARATORS, key=header.count)
    return best if best in header and not (best == "\t" and "\t\t" in header) else None


def _fields(lines: Iterator[tuple[int, str]], separator: str | None) -> Iterator[tuple[int, list[str]]]:
    for number, line in lines:
        if separator is None:
            yield number, line.split()
            continue
        fields = [field.strip() for field in next(csv.reader([line], delimiter=separator))]
        if separator == ";":  # where the comma is taken for decimals
            fields = [field.replace(",", ".") if _DECIMAL_COMMA.fullmatch(field) else field for field in fields]
        if any(fields):
            yield number, fields


def _decode(content: bytes, where: str) -> tuple[str, list[str]]:
    found = file_type(content[:HEAD_BYTES])
    if encoding := _wide_encoding(content):
        try:
            return content.decode(encoding).removeprefix("\ufeff"), []
        except UnicodeDecodeError:
            raise _not_text(where, f"damaged {encoding.upper()} text") from None
    if found is LFS_POINTER:
        raise UsageError(f"{where} is {found.name}: {found.remedy}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" not in text:
        return text, []
    if found not in (TEXT, UNKNOWN):
        raise _not_text(where, "an Excel workbook or zip archive" if found is ZIP else found.name)
    text = content.decode("cp1252", "replace")
    if _CONTROL.search(text):
        raise _not_text(where, "not text")
    return text, [f"{where} is not UTF-8: read as Windows-1252; check names with accents"]


def _not_text(where: str, what: str) -> UsageError:
    remedy = "save it as CSV" if "Excel" in what else "download it again, or save it as plain text"
    return UsageError(f"{where} is {what}, not a text file: {remedy}")


def _wide_encoding(content: bytes) -> str:
    """The name of the encoding where the file is UTF-16, with its mark or without, or UTF-32; otherwise ""."""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return encoding
    head = content[:HEAD_BYTES]
    if len(head) < 8 or head.count(0) <= len(head) // 3:
        return ""
    if not any(head[::2][:64]):
        return "utf-16-be"
    return "" if any(head[1::2][:64]) else "utf-16-le"


def unpacked_list(content: bytes) -> bytes:
    """The list in a gzip file or in a zip archive of one list, as Kaggle hands out single files; others are returned.

    Raises:
        UsageError: it unpacks to more than a list has.
    """
    found = file_type(content[:HEAD_BYTES])
    try:
        if found is GZIP:
            with gzip.open(io.BytesIO(content)) as file:
                content = file.read(MAX_LIST_BYTES + 1)
        elif found is ZIP:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                (name,) = (name for name in archive.namelist() if name.lower().endswith((".txt", ".csv")))
                with archive.open(name) as file:
                    content = file.read(MAX_LIST_BYTES + 1)
    except Exception:  # several lists, or damage; the reader of lines says which file this is
        return content
    refuse_long_list(len(content), "an annotation file that is packed")
    return content
