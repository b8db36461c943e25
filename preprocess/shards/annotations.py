"""The JSON beside each image: key, attributes, factors, landmarks, identity, label, source; absent fields left out.

Built from templates made once per shard, a block of rows at a time, because `json.dumps` of 40 attributes costs a
twentieth of a decode.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as _quoted

import numpy as np

_BLOCK = 256  # rows
NO_LANDMARK = int(np.iinfo(np.int32).min)  # landmarks may lie outside the image, so -1 is a place


@dataclass(frozen=True)
class SampleTable:
    """What is known of n samples, one row each; picklable, and cheap to cut into shards.

    Attributes:
        keys: n names, unique over all splits.
        sources: n file names (or places) the images came from.
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
        return len(self.keys)

    def take(self, rows: Sequence[int]) -> SampleTable:
        """The given rows, in the given order."""
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
        """Consecutive rows, without copying the annotations."""
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
    """A table in which nothing but the names is known."""
    count = len(keys)
    none = np.full(count, -1, np.int64)
    attributes, factors, landmarks = (np.empty((count, 0), kind) for kind in (np.int8, np.float64, np.int32))
    return SampleTable(keys, sources, attributes, factors, none, none.copy(), landmarks)


class JsonEncoder:
    """Turns rows of a `SampleTable` into JSON texts."""

    def __init__(
        self, attribute_names: Sequence[str], factor_names: Sequence[str], landmark_names: Sequence[str] = ()
    ) -> None:
        groups = {"attributes": attribute_names, "factors": factor_names, "landmarks": landmark_names}
        self._groups = [(group, [_quoted(name) for name in names]) for group, names in groups.items()]
        # of rows in which nothing is absent; attributes are one digit each, so all rows' texts are one array of bytes
        attributes, *numbers = self._groups
        self._digits = _DigitGroup(*attributes)
        whole = (_group(group, [f"{name}:%s" for name in _literal(names)]) for group, names in numbers)
        self._numbers = "".join(whole)  # one % instead of a piece for each value

    def encode(self, table: SampleTable) -> Iterator[bytes]:
        """One compact JSON text per row, made a block ahead: what a call to NumPy costs is shared by its rows."""
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
            known = self._without_absent(row) if gaps else attributes + self._numbers % (*row[1], *row[2])
            who = f'"identity":{identity},' if identity >= 0 else ""
            what = f'"label":{label},' if label >= 0 else ""
            text = f'{{"key":{_quoted(key)},{known}{who}{what}"source":{_quoted(source)}}}'
            texts.append(text.encode("ascii"))
        return texts

    def longest(self, table: SampleTable) -> int:
        """A length in bytes that no row's JSON exceeds, without encoding every row."""
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

    def _without_absent(self, row: Sequence[Sequence[float]]) -> str:
        return "".join(
            _group(group, [f"{name}:{value}" for name, value in zip(names, values, strict=True) if present(value)])
            for (group, names), values, present in zip(self._groups, row, _PRESENT, strict=True)
        )


class _DigitGroup:
    """A group whose values are one digit each: texts that differ in single bytes at known places."""

    def __init__(self, group: str, names: Sequence[str]) -> None:
        pairs = [f"{name}:0" for name in names]
        self._template = np.frombuffer(_group(group, pairs).encode("ascii"), np.uint8)
        first = len(f'"{group}":{{')
        ends = np.cumsum([len(pair) + 1 for pair in pairs], dtype=np.int64)  # one more: the comma
        self._places = first + ends - 2

    def texts(self, values: np.ndarray) -> list[str]:
        """The group of each row of int8 (n, len(names)) values; of no meaning where one of them is absent."""
        width = len(self._template)
        if not width:
            return [""] * len(values)
        rows = np.tile(self._template, (len(values), 1))
        rows[:, self._places] += values.astype(np.uint8) & 1  # the template says 0
        joined = rows.tobytes().decode("ascii")
        return [joined[start : start + width] for start in range(0, len(joined), width)]


_PRESENT = (lambda value: value >= 0, lambda value: not math.isnan(value), lambda value: value != NO_LANDMARK)


def _group(name: str, pairs: Sequence[str]) -> str:
    """`"name":{…},` or nothing where there are no pairs."""
    return f'"{name}":{{{",".join(pairs)}}},' if pairs else ""


def _literal(texts: Sequence[str]) -> list[str]:
    return [text.replace("%", "%%") for text in texts]


def _rows_with_gaps(table: SampleTable) -> list[bool]:
    """Whether anything is absent, for each row."""
    gaps = (table.attributes < 0).any(axis=1) | np.isnan(table.factors).any(axis=1)
    return (gaps | (table.landmarks == NO_LANDMARK).any(axis=1)).tolist()


def _longest_number(column: np.ndarray) -> int:
    """The value with the most characters: of whole numbers it is the largest or the smallest."""
    present = column[column != NO_LANDMARK]
    ends = [int(present.max()), int(present.min())] if len(present) else [NO_LANDMARK]
    return max(ends, key=lambda value: len(str(value)))


def _quoted_length(text: str) -> int:
    return len(_quoted(text))


def _factor_length(value: float) -> int:
    return 0 if math.isnan(value) else len(repr(value))
