"""Reads CelebA's annotation files, in the forms in which they are found.

The official files are columns separated by blanks, some with a line that counts the rows and a header, some with
neither. Mirrors drop the count, use CRLF, or are CSVs with a header (Kaggle); spreadsheet programs write semicolons,
tabs or UTF-16. An image is known by its stem, so that lists of `000001.jpg` also fit `000001.png`.
"""

from __future__ import annotations

import math
import reprlib
from array import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from preprocess.containers.file_kinds import has_image_suffix
from preprocess.errors import UsageError
from preprocess.sources.index import SPLIT_NAMES
from preprocess.sources.list_lines import Lines

UNKNOWN = -1
_AMBIGUOUS = 2  # the code of -1 until the whole list is read; it means no, or is an error where 0 occurs too
_YES, _NO = ("1", "true", "yes"), ("0", "false", "no")
_EMPTY = frozenset(("", "nan", "na", "n/a", "null", "none", "?"))
_FILE_COLUMNS = frozenset(("image_id", "image", "image_name", "filename", "file_name", "file", "img", "path"))
_MAX_DIGITS = 19  # of an int64
NO_PIXEL = int(np.iinfo(np.int32).min)


@dataclass(frozen=True)
class Columns:
    """One annotation file: a row of values per image.

    Attributes:
        names: the columns' names.
        rows: stem -> row number.
        files: the image files' names as listed, in the file's order.
        values: (n, columns): int8 for attributes (1, 0, or -1 where unknown), int32 for landmarks, int64 for
            partitions and identities (-1 where unknown), float64 for factors (NaN where unknown).
        notes: lines for the terminal about oddities of the file.
    """

    names: tuple[str, ...]
    rows: dict[str, int]
    files: list[str]
    values: np.ndarray
    notes: tuple[str, ...] = ()


def read_attributes(content: bytes, where: str) -> Columns:
    """Reads list_attr_celeba: 1, True or 1.0 is yes; -1, 0, False, -1.0 or 0.0 is no; an empty cell is unknown.

    Returns:
        Values int8 (n, A).

    Raises:
        UsageError: naming file and line, where a row has another number of columns or another value; or where the list
            holds both 0 and -1.
    """
    found = _read_named(
        content, where, "b", ATTRIBUTE_CODES.__getitem__, "an attribute's 1 or -1 (or 0, True, False, or empty)"
    )
    return Columns(found.names, found.rows, found.files, attribute_values(found.values, where), found.notes)


class _AttributeCodes(dict[str, int]):
    """The code of one cell of an attribute list: 1, 0, -1 where empty, 2 for "-1"; a KeyError for anything else."""

    def __missing__(self, text: str) -> int:
        plain = text.lower().removesuffix(".0").removeprefix("+")
        if plain == text or plain not in self:
            raise KeyError(text)
        return self[plain]


ATTRIBUTE_CODES = _AttributeCodes(
    {
        **dict.fromkeys(_YES, 1),
        **dict.fromkeys(_NO, 0),
        **dict.fromkeys(_EMPTY, UNKNOWN),
        "-1": _AMBIGUOUS,
    }
)


def attribute_values(codes: np.ndarray, where: str) -> np.ndarray:
    """Turns codes of `ATTRIBUTE_CODES` into int8 values: 1, 0, or -1 where unknown.

    Raises:
        UsageError: there are both 0 and -1, so that it is not clear which of them means no.
    """
    signed = codes == _AMBIGUOUS
    if signed.any() and (codes == 0).any():
        raise UsageError(
            f"the attributes of {where} hold both 0 and -1: which of them means no is not defined; write 1 and 0 (or 1 "
            "and -1), and leave unknown cells empty"
        )
    return np.where(signed, 0, codes).astype(np.int8)


def read_landmarks(content: bytes, where: str) -> Columns:
    """Reads list_landmarks_align_celeba: x and y of both eyes, the nose and both ends of the mouth, in whole pixels.

    Returns:
        Values int32 (n, 10); an empty cell is the smallest int32.

    Raises:
        UsageError: naming file and line, where a row has another number of columns or another value.
    """
    return _read_named(content, where, "i", _pixels, "a number of pixels")


def _read_named(content: bytes, where: str, code: str, convert: Callable[[str], int], what: str) -> Columns:
    """Reads a list with a header that names its columns: values of array type `code`, (n, columns)."""
    lines = Lines(content, where)
    rows = iter(lines)
    number, first = next(rows)
    stated = None
    if len(first) == 1 and _is_number(first[0]):
        stated, (number, first) = int(first[0]), next(rows, (number, []))
    names, table, skipped = first, _Table(where), 0
    flat = array(code)
    for number, fields in rows:
        if not table.files and len(names) == len(fields):  # a CSV's header also names the column of files
            skipped = _file_column(names)
            names = names[skipped + 1 :]
        fields = _with_blanks_in_name(fields, skipped + 1 + len(names))  # noqa: PLW2901
        _expect_columns(where, number, fields, skipped + 1 + len(names))
        table.add(number, fields[skipped])
        try:
            flat.extend([convert(value) for value in fields[skipped + 1 :]])
        except KeyError as error:
            raise UsageError(f"{where}, line {number}: {reprlib.repr(error.args[0])} is not {what}") from None
    if not table.files or len(set(names)) != len(names):
        raise UsageError(f"{where} is not a list with named columns: no rows, or two columns of one name")
    if not names:
        raise UsageError(
            f"{where} has no columns beside the images' names: write one column for each attribute, separated by "
            "blanks, commas, semicolons or tabs; or remove the file to do without it"
        )
    notes = lines.notes
    if stated is not None and stated != len(table.files):
        notes = (*notes, f"{where} announces {stated:,} rows and has {len(table.files):,}")
    values = np.frombuffer(flat, flat.typecode).reshape(len(table.files), len(names))
    return Columns(tuple(names), table.rows, table.files, values, notes)


def read_partition(content: bytes, where: str) -> Columns:
    """Reads list_eval_partition: 0 or train, 1 or valid, 2 or test for each image; empty is unknown.

    Returns:
        Values int64 (n, 1), indices into manifest.SPLITS, -1 where unknown.

    Raises:
        UsageError: naming file and line, where a row is not `file partition` or the partition is another one.
    """
    return _read_numbers(content, where, "partition (0, 1 or 2, or train, valid or test)", _partition)


def read_identities(content: bytes, where: str) -> Columns:
    """Reads identity_CelebA: one whole number per image; empty is unknown.

    Returns:
        Values int64 (n, 1), -1 where unknown.

    Raises:
        UsageError: naming file and line, where a row is not `file number` or the number is not valid.
    """
    return _read_numbers(content, where, "identity", _whole)


def _read_numbers(content: bytes, where: str, column: str, convert: Callable[[str], int | None]) -> Columns:
    lines, table = Lines(content, where), _Table(where)
    values: list[int] = []
    headings, skipped = [1, 2], 0  # how many fields a count line has, and a header: one of each may come first
    for number, fields in lines:
        if not table.files and len(fields) > 2 and convert(fields[-1]) is None and _file_column(fields):
            skipped = _file_column(fields)
            continue
        fields = fields[skipped:]  # noqa: PLW2901
        if not table.files and len(fields) in headings and _is_heading(fields, convert):
            headings.remove(len(fields))
            continue
        fields = _with_blanks_in_name(fields, 2)  # noqa: PLW2901
        _expect_columns(where, number, fields, 2)
        value = convert(fields[1])
        if value is None:
            raise UsageError(f"{where}, line {number}: {reprlib.repr(fields[1])} is not a valid {column}")
        table.add(number, fields[0])
        values.append(value)
    if not values:
        raise UsageError(f"{where} lists no images")
    return Columns((column,), table.rows, table.files, np.array(values, np.int64).reshape(-1, 1), lines.notes)


def read_factors(content: bytes, where: str) -> Columns:
    """Reads factors.csv: a header `image,<factor>,…` and one real number per factor; empty means unknown.

    Returns:
        Values float64 (n, F), NaN where unknown.

    Raises:
        UsageError: naming file and line, where a row has another number of columns or not a number.
    """
    lines = Lines(content, where)
    rows = iter(lines)
    number, header = next(rows)
    skipped = _file_column(header)
    names, table = header[skipped + 1 :], _Table(where)
    values: list[list[float]] = []
    for number, fields in rows:
        _expect_columns(where, number, fields, len(header))
        table.add(number, fields[skipped])
        values.append([_real(value, where, number) for value in fields[skipped + 1 :]])
    if not names or len(set(names)) != len(names):
        raise UsageError(f"{where}, line 1: the header names no factors, or one of them twice")
    values_array = np.array(values, np.float64).reshape(-1, len(names))
    return Columns(tuple(names), table.rows, table.files, values_array, lines.notes)


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


def _file_column(header: list[str]) -> int:
    """The number of the column of file names: the first, unless a row number of pandas comes before it."""
    names = [name.lower() for name in header[:2]]
    return 1 if len(names) == 2 and names[1] in _FILE_COLUMNS and names[0] in {"", "index", "unnamed: 0", "id"} else 0


def _is_heading(fields: list[str], convert: Callable[[str], int | None]) -> bool:
    """Whether a line is the number of rows, or names two columns."""
    if len(fields) == 1:
        return _is_number(fields[0])
    return convert(fields[1]) is None and not fields[1].lstrip("-").isdecimal() and not has_image_suffix(fields[0])


def _with_blanks_in_name(fields: list[str], count: int) -> list[str]:
    """Joins the parts of a file name with blanks in it, in a list of columns separated by blanks."""
    extra = len(fields) - count
    if extra > 0 and has_image_suffix(fields[extra]) and not has_image_suffix(fields[0]):
        return [" ".join(fields[: extra + 1]), *fields[extra + 1 :]]
    return fields


def _expect_columns(where: str, number: int, fields: list[str], count: int) -> None:
    if len(fields) != count:
        raise UsageError(f"{where}, line {number}: {len(fields)} columns where {count} are expected")


def _is_number(text: str) -> bool:
    """Whether this is a whole number from 0 up; `isdigit` is true of superscripts, and `int` refuses very long ones."""
    return text.isdecimal() and len(text) <= _MAX_DIGITS


def _whole(text: str) -> int | None:
    """A whole number from 0 up, -1 where the cell is empty, None where it is something else."""
    if text.lower() in _EMPTY:
        return UNKNOWN
    digits = text.removesuffix(".0")
    return int(digits) if _is_number(digits) and int(digits) <= 2**62 else None


def _partition(text: str) -> int | None:
    number = SPLIT_NAMES.get(text.lower(), _whole(text))
    return number if number in {UNKNOWN, 0, 1, 2} else None


def _pixels(text: str) -> int:
    """Raises KeyError where the text is not a whole number of a size that an image can have."""
    if text.lower() in _EMPTY:
        return NO_PIXEL
    digits = text.removesuffix(".0")
    if not digits.removeprefix("-").isdecimal() or len(digits) > 7:
        raise KeyError(text)
    return int(digits)


def _real(text: str, where: str, number: int) -> float:
    try:
        value = math.nan if text.lower() in _EMPTY else float(text)
    except ValueError:
        value = math.inf
    if math.isinf(value):
        raise UsageError(f"{where}, line {number}: {reprlib.repr(text)} is not a finite number")
    return value
