"""The annotations of samples: a table in memory, and one JSON text beside each image in a shard.

The JSON holds key, attributes, factors, landmarks, identity, label and source; unknown values are left out. It is built
from templates, a block of rows at a time: `json.dumps` of 40 attributes would cost a twentieth of a decode. orjson is
fast enough, too, but writes some numbers and all letters outside ASCII differently (1e-5 for 1e-05), which would change
the bytes of shards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as _quoted

import numpy as np

_BLOCK = 256  # rows
NO_LANDMARK = int(np.iinfo(np.int32).min)  # -1 is a possible position: landmarks may lie outside the image


@dataclass(frozen=True)
class SampleTable:
    """The annotations of n samples, one row each; picklable, and cheap to cut into shards.

    Attributes:
        keys: n names, unique over all splits.
        sources: n names of the files (or rows) that the images came from.
        attributes: int8 (n, A), 1, 0, or -1 where absent.
        factors: float64 (n, F), finite, or NaN where absent.
        identity: int64 (n,), -1 where absent.
        label: int64 (n,), -1 where absent.
        landmarks: int32 (n, L), in pixels of the source image, or NO_LANDMARK where absent.
    """

    keys: Sequence[str]
    sources: Sequence[str]
    attributes: np.ndarray
    factors: np.ndarray
    identity: np.ndarray
    label: np.ndarray
    landmarks: np.ndarray

    def __len__(self) -> int:
        """Returns the number of samples."""
        return len(self.keys)

    def take(self, rows: Sequence[int]) -> SampleTable:
        """Returns the given rows, in the given order."""
        index = np.asarray(rows, np.int64)
        return SampleTable(
            [self.keys[i] for i in rows],
            [self.sources[i] for i in rows],
            self.attributes[index],
            self.factors[index],
            self.identity[index],
            self.label[index],
            self.landmarks[index],
        )

    def part(self, start: int, stop: int) -> SampleTable:
        """Returns the rows from `start` to `stop`, without copying the annotations."""
        rows = slice(start, stop)
        return SampleTable(
            self.keys[rows],
            self.sources[rows],
            self.attributes[rows],
            self.factors[rows],
            self.identity[rows],
            self.label[rows],
            self.landmarks[rows],
        )


def table_without_annotations(keys: Sequence[str], sources: Sequence[str]) -> SampleTable:
    """Returns a table that holds only names."""
    count = len(keys)
    none = np.full(count, -1, np.int64)
    attributes, factors, landmarks = (np.empty((count, 0), kind) for kind in (np.int8, np.float64, np.int32))
    return SampleTable(keys, sources, attributes, factors, none, none.copy(), landmarks)


class JsonEncoder:
    """Turns rows of a `SampleTable` into JSON texts."""

    def __init__(
        self, attribute_names: Sequence[str], factor_names: Sequence[str], landmark_names: Sequence[str] = ()
    ) -> None:
        """Prepares the templates for the named columns."""
        groups = {"attributes": attribute_names, "factors": factor_names, "landmarks": landmark_names}
        self._groups = [(group, [_quoted(name) for name in names]) for group, names in groups.items()]
        # for rows without unknown values: attributes are one digit each, so all rows' texts are one array of bytes
        attributes, *numbers = self._groups
        self._digits = _DigitGroup(*attributes)
        whole = (_group(group, [f"{name}:%s" for name in _literal(names)]) for group, names in numbers)
        self._numbers = "".join(whole)  # filled in by one % operation

    def encode(self, table: SampleTable) -> Iterator[bytes]:
        """Yields one compact JSON text for each row. A block of rows shares the cost of the NumPy calls."""
        for start in range(0, len(table), _BLOCK):
            yield from self._encode(table.part(start, start + _BLOCK))

    def _encode(self, table: SampleTable) -> list[bytes]:
        rows = zip(table.attributes.tolist(), table.factors.tolist(), table.landmarks.tolist(), strict=True)
        numbers = zip(table.identity.tolist(), table.label.tolist(), strict=True)
        digits = self._digits.texts(table.attributes)
        texts = []
        for key, source, row, gaps, attributes, (identity, label) in zip(
            table.keys, table.sources, rows, _rows_with_gaps(table), digits, numbers, strict=True
        ):
            known = self._without_unknown(row) if gaps else attributes + self._numbers % (*row[1], *row[2])
            identity_text = f'"identity":{identity},' if identity >= 0 else ""
            label_text = f'"label":{label},' if label >= 0 else ""
            text = f'{{"key":{_quoted(key)},{known}{identity_text}{label_text}"source":{_quoted(source)}}}'
            texts.append(text.encode("ascii"))
        return texts

    def longest(self, table: SampleTable) -> int:
        """Returns an upper bound of the length of the rows' JSON, in bytes, without encoding every row."""
        if not len(table):
            return 2
        extreme = [max(column.tolist(), key=_factor_length) for column in table.factors.T]
        worst = SampleTable(
            [max(table.keys, key=_quoted_length)],
            [max(table.sources, key=_quoted_length)],
            np.ones((1, table.attributes.shape[1]), np.int8),
            np.array([extreme], np.float64),
            table.identity.max(keepdims=True),
            table.label.max(keepdims=True),
            np.array([[_longest_number(column) for column in table.landmarks.T]], np.int32),
        )
        return len(self._encode(worst)[0])

    def _without_unknown(self, row: Sequence[Sequence[float]]) -> str:
        return "".join(
            _group(group, [f"{name}:{value}" for name, value in zip(names, values, strict=True) if present(value)])
            for (group, names), values, present in zip(self._groups, row, _PRESENT, strict=True)
        )


class _DigitGroup:
    """A group whose values are one digit each: its texts differ in single bytes at fixed offsets."""

    def __init__(self, group: str, names: Sequence[str]) -> None:
        pairs = [f"{name}:0" for name in names]
        self._template = np.frombuffer(_group(group, pairs).encode("ascii"), np.uint8)
        first = len(f'"{group}":{{')
        ends = np.cumsum([len(pair) + 1 for pair in pairs], dtype=np.int64)  # one more: the comma
        self._offsets = first + ends - 2

    def texts(self, values: np.ndarray) -> list[str]:
        """Returns the group's text for each row of int8 (n, len(names)); it is wrong for a row with unknown values."""
        width = len(self._template)
        if not width:
            return [""] * len(values)
        rows = np.tile(self._template, (len(values), 1))
        rows[:, self._offsets] += values.astype(np.uint8) & 1  # the template holds "0"
        joined = rows.tobytes().decode("ascii")
        return [joined[start : start + width] for start in range(0, len(joined), width)]


_PRESENT = (lambda value: value >= 0, lambda value: not math.isnan(value), lambda value: value != NO_LANDMARK)


def _group(name: str, pairs: Sequence[str]) -> str:
    """Returns `"name":{…},`, or "" where there are no pairs."""
    return f'"{name}":{{{",".join(pairs)}}},' if pairs else ""


def _literal(texts: Sequence[str]) -> list[str]:
    return [text.replace("%", "%%") for text in texts]


def _rows_with_gaps(table: SampleTable) -> list[bool]:
    """Returns for each row whether it has an unknown value."""
    gaps = (table.attributes < 0).any(axis=1) | np.isnan(table.factors).any(axis=1)
    return (gaps | (table.landmarks == NO_LANDMARK).any(axis=1)).tolist()


def _longest_number(column: np.ndarray) -> int:
    """Returns the value with the most characters, which is the largest or the smallest."""
    present = column[column != NO_LANDMARK]
    ends = [int(present.max()), int(present.min())] if len(present) else [NO_LANDMARK]
    return max(ends, key=lambda value: len(str(value)))


def _quoted_length(text: str) -> int:
    return len(_quoted(text))


def _factor_length(value: float) -> int:
    return 0 if math.isnan(value) else len(repr(value))
