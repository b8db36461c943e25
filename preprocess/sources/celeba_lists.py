"""Reads CelebA's annotation files, in the forms in which they are found.

The official files are columns separated by blanks, some with a line that counts the rows and a header, some with
neither. Mirrors drop the count, use CRLF, or are CSVs with a header (Kaggle); spreadsheet programs write semicolons,
tabs or UTF-16, and columns that are empty. An image is known by its stem, so that lists of `000001.jpg` also fit
`000001.png`.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import reprlib
import unicodedata
from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np

from preprocess.containers.file_kinds import IMAGE_SUFFIXES, has_image_suffix
from preprocess.errors import UsageError
from preprocess.shards.annotations import NO_LANDMARK
from preprocess.sources.index import split_named
from preprocess.sources.list_lines import read_lines

UNKNOWN = -1
_AMBIGUOUS = 2  # the code of -1 until the whole column is read; it means no, or is an error where 0 occurs too
_EMPTY = frozenset(("", "nan", "na", "n/a", "null", "none", "?"))
_ATTRIBUTE_CODES = {
    **dict.fromkeys(("1", "true", "yes", "y", "t"), 1),
    **dict.fromkeys(("0", "-0", "false", "no", "n", "f"), 0),
    **dict.fromkeys(_EMPTY, UNKNOWN),
    "-1": _AMBIGUOUS,
}
_FILE_COLUMNS = frozenset(("image_id", "image", "image_name", "filename", "file_name", "file", "img", "path"))
_ROW_NUMBERS = frozenset(("", "index", "unnamed: 0", "id"))  # headers that pandas writes before the column of files
_MAX_DIGITS = 19  # of an int64
_NO_LINE: tuple[int, list[str]] = 0, []
_COUNT = re.compile(r"[0-9]{1,3}(?:[,.'][0-9]{3})+")  # with separators of thousands


@dataclass(frozen=True)
class Columns:
    """One annotation file: a row of values per image.

    `values` are int8 for attributes (1, 0, or -1 where unknown), int32 for landmarks, int64 for partitions and
    identities (-1 where unknown), float64 for factors (NaN where unknown).
    """

    names: tuple[str, ...]  # of the columns
    rows: dict[str, int]  # `list_key` of a file's name -> row number
    files: list[str]  # the image files' names as listed, in the file's order
    values: np.ndarray  # (n, columns)
    notes: tuple[str, ...]  # lines for the terminal about oddities of the file


def stem_of(name: str) -> str:
    """`folder/000001.jpg` -> `000001`. Only the suffix of an image is cut off."""
    file = name.replace("\\", "/").rsplit("/", 1)[-1]
    stem, dot, suffix = file.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else file


def list_key(name: str) -> str:
    """The stem by which an image is found in a list: macOS writes letters with accents in two parts."""
    stem = stem_of(name)
    return stem if stem.isascii() else unicodedata.normalize("NFC", stem)


@lru_cache(1024)
def attribute_code(text: str) -> int:
    """The code of one cell of an attribute list: 1, 0, -1 where empty, 2 for "-1".

    Raises:
        KeyError: When the cell holds anything else.
    """
    plain = text.lower().replace("\u2212", "-")
    with contextlib.suppress(ValueError):
        plain = f"{float(plain):g}"
    if plain not in _ATTRIBUTE_CODES:
        raise KeyError(text)
    return _ATTRIBUTE_CODES[plain]


def attribute_values(codes: np.ndarray, where: str) -> np.ndarray:
    """Turns codes of `attribute_code` into int8: 1, 0, or -1 where unknown; `where` names the list in messages.

    Raises:
        UsageError: When there are both 0 and -1, so that it is not clear which of them means no.
    """
    signed = codes == _AMBIGUOUS
    if signed.any() and (codes == 0).any():
        raise UsageError(
            f"the attributes of {where} hold both 0 and -1: which of them means no is not defined; write 1 and 0 (or 1 "
            "and -1), and leave unknown cells empty"
        )
    return np.where(signed, 0, codes).astype(np.int8)


def _read_list(
    code: str, convert: Callable[[str], float], valid: str, content: bytes, where: str, single: str = ""
) -> Columns:
    """Reads a list: perhaps the number of rows, a header, and one row for each image.

    Each cell goes through `convert` (a KeyError where it is not what `valid` says) into an `array` of type `code`. A
    list with only one column of values, named `single`, may lack a header.

    Raises:
        UsageError: naming file and line, where a row has another number of columns or another value.
    """
    lines, notes = read_lines(content, where)
    first = next(lines, _NO_LINE)
    if (stated := _count(first[1])) is not None:
        first = next(lines, _NO_LINE)
    header: list[str] = []
    column, skipped, width = 0, 0, 2
    if first[1] and not (single and _is_row(first[1], convert)):
        header = _without_empty_end(first[1])
        column, skipped, width = _place_of_files(header, where)
        first = next(lines, _NO_LINE)
        if column < 0:  # the official lists do not name the column of files
            column, width = 0, width + (len(first[1]) > width)
    rows: dict[str, int] = {}
    files: list[str] = []
    flat, repeated = array(code), 0
    for number, line in itertools.chain([first], lines):
        fields = _fitted(line, width)
        if fields == header or not fields:
            continue
        if len(fields) != width:
            raise UsageError(f"{where}, line {number}: {len(fields)} columns where {width} are expected")
        try:
            values = [convert(value) for value in fields[skipped:column] + fields[column + 1 :]]
        except KeyError as error:
            raise UsageError(f"{where}, line {number}: {reprlib.repr(error.args[0])} is not {valid}") from None
        name = fields[column]
        row = rows.setdefault(list_key(name), len(files))
        if row == len(files):
            files.append(name)
            flat.extend(values)
        elif flat[row * len(values) : (row + 1) * len(values)].tobytes() == array(code, values).tobytes():
            repeated += 1
        else:
            twice = f"{name[:100]} is listed twice, with other values"
            raise UsageError(f"{where}, line {number}: {twice}: remove one row")
    values_only = header if width > len(header) else header[skipped:column] + header[column + 1 :]
    names = (single,) if single else tuple(values_only)
    _refuse_list(where, names, len(files), len(flat), single)
    if stated is not None and stated != len(files):
        notes.append(f"{where} announces {stated:,} rows and has {len(files):,}")
    if repeated:
        notes.append(f"{where} lists {repeated:,} images twice, with the same values")
    return Columns(names, rows, files, np.frombuffer(flat, flat.typecode).reshape(len(files), -1), tuple(notes))


def _refuse_list(where: str, names: tuple[str, ...], rows: int, values: int, single: str) -> None:
    """Refuses a list without rows, without columns, or with two columns of one name."""
    if not rows:
        raise UsageError(f"{where} lists no images: it has no rows below its header")
    if single and values != rows:
        raise UsageError(f"{where} has {values // rows + 1} columns where 2 are expected: the image and its {single}")
    if (twice := next((name for i, name in enumerate(names) if name in names[:i]), None)) is not None:
        raise UsageError(f"{where} has two columns called {reprlib.repr(twice)}: rename or remove one of them")
    if not names:
        raise UsageError(
            f"{where} has no columns beside the images' names: write one column for each attribute, separated by "
            "blanks, commas, semicolons or tabs; or remove the file to do without it"
        )


def _place_of_files(header: list[str], where: str) -> tuple[int, int, int]:
    """The number of the column of files (-1 if not named), of columns of row numbers before it, and of all columns."""
    if has_image_suffix(header[0]) and len(header) > 1:
        raise UsageError(f"{where} has no header: add a first line with the columns' names above {header[0][:100]}")
    names = [name.lower() for name in header]
    column = next((i for i, name in enumerate(names) if name in _FILE_COLUMNS), -1)
    return column, int(column > 0 and len(names) > 2 and names[0] in _ROW_NUMBERS), len(header)


def _is_row(fields: list[str], convert: Callable[[str], float]) -> bool:
    """Whether this is a row, and not the header, of a list with one column of values."""
    fields = _without_empty_end(fields)
    try:
        convert(fields[-1])
    except KeyError:
        return has_image_suffix(fields[0]) or fields[-1].lstrip("-").isdecimal()
    return True


def _fitted(fields: list[str], width: int) -> list[str]:
    """Drops empty fields beyond the last column, and joins a name with blanks that was cut at them."""
    extra = len(fields) - width
    if extra > 0 and not any(fields[width:]):
        return fields[:width]
    if extra > 0 and has_image_suffix(fields[extra]) and not has_image_suffix(fields[0]):
        return [" ".join(fields[: extra + 1]), *fields[extra + 1 :]]
    return fields


def _without_empty_end(fields: list[str]) -> list[str]:
    return fields[: next((i for i in range(len(fields), 0, -1) if fields[i - 1]), 1)]


def _count(fields: list[str]) -> int | None:
    """The number of rows that a list's first line states; None where it is another line."""
    if len(fields) != 1:
        return None
    digits = re.sub(r"[,.']", "", fields[0]) if _COUNT.fullmatch(fields[0]) else fields[0]
    return int(digits) if _is_number(digits) else None


def _is_number(text: str) -> bool:
    """Whether this is a whole number from 0 up; `isdigit` is true of superscripts, and `int` refuses very long ones."""
    return text.isdecimal() and len(text) <= _MAX_DIGITS


def _whole(text: str) -> int:
    """A whole number from 0 up, -1 where the cell is empty or -1."""
    if text.lower() in _EMPTY or text == "-1":
        return UNKNOWN
    digits = text.removesuffix(".0")
    if not _is_number(digits) or int(digits) > 2**62:
        raise KeyError(text)
    return int(digits)


def _partition(text: str) -> int:
    number = split_named(text)
    number = _whole(text) if number < 0 else number
    if number > 2:
        raise KeyError(text)
    return number


def _pixels(text: str) -> int:
    number = _real(text)
    if abs(number) >= 1e7:
        raise KeyError(text)
    return NO_LANDMARK if math.isnan(number) else round(number)


def _real(text: str) -> float:
    try:
        number = math.nan if text.lower() in _EMPTY else float(text)
    except ValueError:
        number = math.inf
    if math.isinf(number):
        raise KeyError(text)
    return number


def read_attributes(content: bytes, where: str) -> Columns:
    """Reads list_attr_celeba: 1, True, yes or 1.0 is yes; -1, 0, False, no or -1.0 is no; an empty cell is unknown.

    Raises:
        UsageError: naming file and line, where a row has another number of columns or another value; or where the list
            holds both 0 and -1.
    """
    valid = "an attribute's 1 or -1 (or 0, True, False, or empty): correct it, or remove that column"
    found = _read_list("b", attribute_code, valid, content, where)
    return replace(found, values=attribute_values(found.values, where))


# list_landmarks_align_celeba: x and y of both eyes, the nose and both ends of the mouth; `NO_LANDMARK` where empty
read_landmarks = partial(_read_list, "i", _pixels, "a number of pixels")
# list_eval_partition: an index into manifest.SPLITS, as a number or as a name; -1 where unknown
_VALID_PARTITION = "a valid partition (0, 1 or 2, or train, valid or test)"
read_partition = partial(_read_list, "q", _partition, _VALID_PARTITION, single="partition")
# identity_CelebA: one whole number per image; -1 where unknown
_VALID_IDENTITY = "a valid identity: write one whole number for each person"
read_identities = partial(_read_list, "q", _whole, _VALID_IDENTITY, single="identity")
# factors.csv: a header `image,<factor>,…` and one real number per factor; NaN where empty
read_factors = partial(_read_list, "d", _real, "a finite number")

# what a list says: its reader, its usual names, and the word for one row of it; nobody misses a list without that word
LISTS: dict[str, tuple[Callable[[bytes, str], Columns], tuple[str, ...], str]] = {
    "attributes": (
        read_attributes,
        ("list_attr_celeba.txt", "list_attr_celeba.csv", "CelebAMask-HQ-attribute-anno.txt"),
        "attribute",
    ),
    "partition": (read_partition, ("list_eval_partition.txt", "list_eval_partition.csv"), "partition"),
    "identities": (read_identities, ("identity_CelebA.txt", "identity_CelebA.csv"), "identity"),
    "landmarks": (
        read_landmarks,
        ("list_landmarks_align_celeba.txt", "list_landmarks_align_celeba.csv"),
        "landmark",
    ),
    "factors": (read_factors, ("factors.csv",), ""),
}
