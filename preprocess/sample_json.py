"""The JSON beside each image: key, attributes, factors, landmarks, identity, label, source; absent fields left out.

Built from pieces made once per shard, because `json.dumps` of 40 attributes costs a twentieth of a decode.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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


def table_without_annotations(keys: Sequence[str], sources: Sequence[str]) -> SampleTable:
    """A table in which nothing but the names is known."""
    count = len(keys)
    none = np.full(count, -1, np.int64)
    attributes, factors, landmarks = (np.empty((count, 0), kind) for kind in (np.int8, np.float64, np.int32))
    return SampleTable(keys, sources, attributes, factors, none, none.copy(), landmarks)


class JsonEncoder:
    """Turns rows of a `SampleTable` into JSON texts, a column at a time."""

    def __init__(
        self, attribute_names: Sequence[str], factor_names: Sequence[str], landmark_names: Sequence[str] = ()
    ) -> None:
        names = [json.dumps(name) for name in attribute_names]
        self._attributes = [(f"{name}:0", f"{name}:1", "") for name in names]  # indexed by 0, 1 and -1
        self._factors = [f"{json.dumps(name)}:" for name in factor_names]
        self._landmarks = [f"{json.dumps(name)}:" for name in landmark_names]

    def encode(self, table: SampleTable) -> list[bytes]:
        """One compact JSON text per row."""
        fields = [
            [f'"key":{json.dumps(key)}' for key in table.keys],
            self._group("attributes", self._attribute_columns(table), len(table)),
            self._group("factors", self._factor_columns(table), len(table)),
            self._group("landmarks", self._landmark_columns(table), len(table)),
            [f'"identity":{number}' if number >= 0 else "" for number in table.identity.tolist()],
            [f'"label":{number}' if number >= 0 else "" for number in table.label.tolist()],
            [f'"source":{json.dumps(source)}' for source in table.sources],
        ]
        return [("{" + ",".join(filter(None, row)) + "}").encode("ascii") for row in zip(*fields, strict=True)]

    def longest(self, table: SampleTable) -> int:
        """A length in bytes that no row's JSON exceeds, without encoding every row."""
        if not len(table):
            return 2
        extreme = [max(column.tolist(), key=_factor_length) for column in table.factors.T]
        worst = SampleTable(
            [max(table.keys, key=_json_length)],
            [max(table.sources, key=_json_length)],
            np.ones((1, len(self._attributes)), np.int8),
            np.array([extreme], np.float64),
            table.identity.max(keepdims=True),
            table.label.max(keepdims=True),
            np.array([[_longest_number(column) for column in table.landmarks.T]], np.int32),
        )
        return len(self.encode(worst)[0])

    def _attribute_columns(self, table: SampleTable) -> list[list[str]]:
        columns = table.attributes.T.tolist()
        return [[pieces[value] for value in column] for pieces, column in zip(self._attributes, columns, strict=True)]

    def _factor_columns(self, table: SampleTable) -> list[list[str]]:
        columns = table.factors.T.tolist()
        return [
            ["" if math.isnan(value) else name + repr(value) for value in column]
            for name, column in zip(self._factors, columns, strict=True)
        ]

    def _landmark_columns(self, table: SampleTable) -> list[list[str]]:
        columns = table.landmarks.T.tolist()
        return [
            ["" if value == NO_LANDMARK else f"{name}{value}" for value in column]
            for name, column in zip(self._landmarks, columns, strict=True)
        ]

    @staticmethod
    def _group(name: str, columns: list[list[str]], count: int) -> list[str]:
        """`"name":{…}` for each row, or "" where the row has none of the columns."""
        if not columns:
            return [""] * count
        joined = [",".join(filter(None, row)) for row in zip(*columns, strict=True)]
        return [f'"{name}":{{{inside}}}' if inside else "" for inside in joined]


def _longest_number(column: np.ndarray) -> int:
    """The value with the most characters: of whole numbers it is the largest or the smallest."""
    present = column[column != NO_LANDMARK]
    ends = [int(present.max()), int(present.min())] if len(present) else [NO_LANDMARK]
    return max(ends, key=lambda value: len(str(value)))


def _json_length(text: str) -> int:
    return len(json.dumps(text))


def _factor_length(value: float) -> int:
    return 0 if math.isnan(value) else len(repr(value))
