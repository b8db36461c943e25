"""Reads CelebA's annotation files, in the forms in which they are found.

The official files are columns separated by runs of blanks, some with a count line and a header, some with
neither; mirrors drop the count line, use CRLF, or are CSVs with a header (Kaggle). An image is known by its
stem, so that lists of `000001.jpg` also fit `000001.png`.
"""

from __future__ import annotations

import csv
import io
import math
import reprlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from preprocess.errors import UsageError

_SIGNS = {"1": 1, "-1": 0}
_WEB_PAGE = ("<!doctype", "<html")
_MAX_LINE = 100_000
_MAX_DIGITS = 19  # of an int64


@dataclass(frozen=True)
class Columns:
    """One annotation file: a row of values per image.

    Attributes:
        names: the columns' names.
        rows: stem -> row number.
        files: the image files' names as listed, in the file's order.
        values: (n, columns): int8 for attributes, int32 for landmarks, int64 for partitions and
            identities, float64 for factors.
        note: something odd that a person should hear, or "".
    """

    names: tuple[str, ...]
    rows: dict[str, int]
    files: list[str]
    values: np.ndarray
    note: str = ""


def read_attributes(content: bytes, where: str) -> Columns:
    """list_attr_celeba: values of ±1 become 1 and 0, int8 (n, A).

    Raises:
        UsageError: naming file and line, where a row has another number of columns or another value.
    """
    return _read_named(content, where, "b", _SIGNS.__getitem__, "an attribute's 1 or -1")


def read_landmarks(content: bytes, where: str) -> Columns:
    """list_landmarks_align_celeba: whole pixels, int32 (n, 10): x and y of both eyes, nose, both ends of the mouth.

    Raises:
        UsageError: naming file and line, where a row has another number of columns or another value.
    """
    return _read_named(content, where, "i", _pixels, "a number of pixels")


def _read_named(content: bytes, where: str, code: str, convert: Callable[[str], int], what: str) -> Columns:
    """A list with a header that names its columns: values of array type `code`, (n, columns)."""
    lines = _lines(content, where)
    number, first = next(lines)
    stated = None
    if len(first) == 1 and _is_number(first[0]):
        stated, (number, first) = int(first[0]), next(lines, (number, []))
    names, table = first, _Table(where)
    flat = array(code)
    for number, fields in lines:
        if not table.files and len(names) == len(fields):
            names = names[1:]  # a CSV's header also names the column of files
        _expect_columns(where, number, fields, len(names) + 1)
        table.add(number, fields[0])
        try:
            flat.extend([convert(value) for value in fields[1:]])
        except KeyError as error:
            raise UsageError(f"{where}, line {number}: {reprlib.repr(error.args[0])} is not {what}") from None
    if not table.files or len(set(names)) != len(names):
        raise UsageError(f"{where} is not a list with named columns: no rows, or two columns of one name")
    note = ""
    if stated is not None and stated != len(table.files):
        note = f"{where} announces {stated:,} rows and has {len(table.files):,}"
    values = np.frombuffer(flat, flat.typecode).reshape(len(table.files), len(names))
    return Columns(tuple(names), table.rows, table.files, values, note)


def read_numbers(content: bytes, where: str, column: str, allowed: range | None = None) -> Columns:
    """list_eval_partition or identity_CelebA: one whole number per image, int64 (n, 1).

    Raises:
        UsageError: naming file and line, where a row is not `file number` or the number is not allowed.
    """
    table = _Table(where)
    values: list[int] = []
    headings = [1, 2]  # how many fields a count line has, and a CSV's header: one of each may come first
    for number, fields in _lines(content, where):
        if not table.files and len(fields) in headings and fields[-1].lstrip("-").isdecimal() == (len(fields) == 1):
            headings.remove(len(fields))
            continue
        _expect_columns(where, number, fields, 2)
        value = int(fields[1]) if _is_number(fields[1]) else -1
        if value < 0 or value > 2**62 or (allowed is not None and value not in allowed):
            raise UsageError(f"{where}, line {number}: {reprlib.repr(fields[1])} is not a valid {column}")
        table.add(number, fields[0])
        values.append(value)
    if not values:
        raise UsageError(f"{where} lists no images")
    return Columns((column,), table.rows, table.files, np.array(values, np.int64).reshape(-1, 1))


def read_factors(content: bytes, where: str) -> Columns:
    """factors.csv: a header `image,<factor>,…` and one real number per factor; empty means unknown (NaN).

    Raises:
        UsageError: naming file and line, where a row has another number of columns or not a number.
    """
    lines = _lines(content, where)
    number, header = next(lines)
    names, table = header[1:], _Table(where)
    values: list[list[float]] = []
    for number, fields in lines:
        _expect_columns(where, number, fields, len(header))
        table.add(number, fields[0])
        values.append([_real(value, where, number) for value in fields[1:]])
    if not names or len(set(names)) != len(names):
        raise UsageError(f"{where}, line 1: the header names no factors, or one of them twice")
    return Columns(tuple(names), table.rows, table.files, np.array(values, np.float64).reshape(-1, len(names)))


def stem_of(name: str) -> str:
    """`folder/000001.jpg` -> `000001`."""
    return name.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]


class _Table:
    """The images a file lists, each once."""

    def __init__(self, where: str) -> None:
        self._where = where
        self.rows: dict[str, int] = {}
        self.files: list[str] = []

    def add(self, number: int, name: str) -> None:
        if self.rows.setdefault(stem_of(name), len(self.files)) != len(self.files):
            raise UsageError(f"{self._where}, line {number}: {name[:100]} is listed twice")
        self.files.append(name)


def _lines(content: bytes, where: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each line that is not blank; at least one.

    Raises:
        UsageError: the file is not text, is empty, or is a web page.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{where} is not a text file; download it again") from None
    first = next((line for line in io.StringIO(text, newline=None) if line.strip()), "")
    if not first or first.lstrip().lower().startswith(_WEB_PAGE):
        what = "a web page, not an annotation file" if first else "empty"
        raise UsageError(f"{where} is {what}; download it again, or remove it to go on without it")
    return _fields(text, where, csv_like="," in first)


def _fields(text: str, where: str, csv_like: bool) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(
        io.StringIO(text, newline=None), 1
    ):  # one at a time: a list of lines takes many times the text
        if len(line) > _MAX_LINE:
            raise UsageError(
                f"{where}, line {number} has more than {_MAX_LINE:,} characters: that is no list of images"
            )
        if line.strip():
            yield number, [field.strip() for field in next(csv.reader([line]))] if csv_like else line.split()


def _expect_columns(where: str, number: int, fields: list[str], count: int) -> None:
    if len(fields) != count:
        raise UsageError(f"{where}, line {number}: {len(fields)} columns where {count} are expected")


def _is_number(text: str) -> bool:
    """Whether this is a whole number from 0 up; `isdigit` is true of superscripts, and `int` refuses very long ones."""
    return text.isdecimal() and len(text) <= _MAX_DIGITS


def _pixels(text: str) -> int:
    """Raises KeyError where the text is not a whole number of a size that an image can have."""
    if not text.removeprefix("-").isdecimal() or len(text) > 7:
        raise KeyError(text)
    return int(text)


def _real(text: str, where: str, number: int) -> float:
    try:
        value = float(text) if text else math.nan
    except ValueError:
        value = math.inf
    if math.isinf(value):
        raise UsageError(f"{where}, line {number}: {reprlib.repr(text)} is not a finite number")
    return value
