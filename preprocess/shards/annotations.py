"""The annotations of samples: a table in memory, and one JSON text beside each image in a shard.

The JSON is joined from pieces: `json.dumps` of 40 attributes would cost a twentieth of a decode. orjson is fast enough,
too, but writes some numbers and all letters outside ASCII differently (1e-5 for 1e-05): that would change the shards.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any

import numpy as np

NO_LANDMARK = int(np.iinfo(np.int32).min)  # -1 is a possible position: landmarks may lie outside the image
ColumnNames = tuple[Sequence[str], Sequence[str], Sequence[str]]
"""The names of a table's attributes, factors and landmarks."""


@dataclass(frozen=True)
class SampleTable:
    """The annotations of n samples, one row each; picklable, and cheap to cut into shards."""

    keys: Sequence[str]  # unique over all splits
    sources: Sequence[str]  # names of the files (or rows) that the images came from
    attributes: np.ndarray  # int8 (n, A): 1, 0, or -1 where absent
    factors: np.ndarray  # float64 (n, F): finite, or NaN where absent
    identity: np.ndarray  # int64 (n,), -1 where absent
    label: np.ndarray  # int64 (n,), -1 where absent
    landmarks: np.ndarray  # int32 (n, L), in pixels of the source image, or NO_LANDMARK where absent

    def __len__(self) -> int:
        """Returns the number of samples."""
        return len(self.keys)

    def take(self, rows: Sequence[int]) -> SampleTable:
        """Returns the given rows, in the given order."""
        index = np.asarray(rows, np.int64)
        keys, sources = ([texts[row] for row in rows] for texts in (self.keys, self.sources))
        columns = (self.attributes, self.factors, self.identity, self.label, self.landmarks)
        return SampleTable(keys, sources, *(column[index] for column in columns))


def table_without_annotations(keys: Sequence[str], sources: Sequence[str]) -> SampleTable:
    """Returns a table that holds only names."""
    count = len(keys)
    none = np.full(count, -1, np.int64)
    attributes, factors, landmarks = (np.empty((count, 0), kind) for kind in (np.int8, np.float64, np.int32))
    return SampleTable(keys, sources, attributes, factors, none, none.copy(), landmarks)


def json_texts(table: SampleTable, names: ColumnNames) -> Iterator[bytes]:
    """Yields one compact JSON text for each row. Pieces are made a column at a time, which is faster."""
    attributes, factors, landmarks = names
    pieces = [
        _group("attributes", attributes, table.attributes, table.attributes < 0),
        _group("factors", factors, table.factors, np.isnan(table.factors)),
        _group("landmarks", landmarks, table.landmarks, table.landmarks == NO_LANDMARK),
        (f'"identity":{number},' if number >= 0 else "" for number in table.identity.tolist()),
        (f'"label":{number},' if number >= 0 else "" for number in table.label.tolist()),
    ]
    for key, source, *known in zip(table.keys, table.sources, *pieces, strict=True):
        yield f'{{"key":{_quoted(key)},{"".join(known)}"source":{_quoted(source)}}}'.encode("ascii")


def _group(group: str, names: Sequence[str], values: np.ndarray, unknown: np.ndarray) -> Iterator[str]:
    """Yields `"group":{…},` for each row, or "" where all its values are unknown."""
    quoted = [_quoted(name) for name in names]
    columns = [[f"{name}:{value}" for value in row] for name, row in zip(quoted, values.T.tolist(), strict=True)]
    for row, column in np.argwhere(unknown).tolist():
        columns[column][row] = ""
    for row in zip(*columns, strict=True) if columns else itertools.repeat((), len(values)):
        joined = ",".join(filter(None, row))
        yield f'"{group}":{{{joined}}},' if joined else ""


def longest_json(table: SampleTable, names: ColumnNames) -> int:
    """Returns an upper bound of the length of the rows' JSON, in bytes: that of a row of the longest values."""
    if not len(table):
        return 2
    factors = [_longest(column[~np.isnan(column)].tolist(), np.nan) for column in table.factors.T]
    landmarks = [_longest(column[column != NO_LANDMARK].tolist(), NO_LANDMARK) for column in table.landmarks.T]
    worst = SampleTable(
        [_longest(table.keys)],
        [_longest(table.sources)],
        np.ones((1, table.attributes.shape[1]), np.int8),
        np.array([factors], np.float64),
        table.identity.max(keepdims=True),
        table.label.max(keepdims=True),
        np.array([landmarks], np.int32),
    )
    return len(next(json_texts(worst, names)))


def _longest(values: Sequence[str] | Sequence[float], default: float | None = None) -> Any:
    return max(values, key=lambda value: len(_quoted(value) if isinstance(value, str) else str(value)), default=default)
