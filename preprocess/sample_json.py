"""The JSON beside each image: key, attributes, factors, identity, label, source; absent fields left out.

Built from pieces made once per shard, because `json.dumps` of 40 attributes costs a twentieth of a decode.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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
    """

    keys: Sequence[str]
    sources: Sequence[str]
    attributes: np.ndarray
    factors: np.ndarray
    identity: np.ndarray
    label: np.ndarray

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
        )


def table_without_annotations(keys: Sequence[str], sources: Sequence[str]) -> SampleTable:
    """A table in which nothing but the names is known."""
    count = len(keys)
    none = np.full(count, -1, np.int64)
    return SampleTable(keys, sources, np.empty((count, 0), np.int8), np.empty((count, 0)), none, none.copy())


class JsonEncoder:
    """Turns rows of a `SampleTable` into JSON texts, a column at a time."""

    def __init__(self, attribute_names: Sequence[str], factor_names: Sequence[str]) -> None:
        names = [json.dumps(name) for name in attribute_names]
        self._attributes = [(f"{name}:0", f"{name}:1", "") for name in names]  # indexed by 0, 1 and -1
        self._factors = [f"{json.dumps(name)}:" for name in factor_names]

    def encode(self, table: SampleTable) -> list[bytes]:
        """One compact JSON text per row."""
        fields = [
            [f'"key":{json.dumps(key)}' for key in table.keys],
            self._group("attributes", self._attribute_columns(table), len(table)),
            self._group("factors", self._factor_columns(table), len(table)),
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

    @staticmethod
    def _group(name: str, columns: list[list[str]], count: int) -> list[str]:
        """`"name":{…}` for each row, or "" where the row has none of the columns."""
        if not columns:
            return [""] * count
        joined = [",".join(filter(None, row)) for row in zip(*columns, strict=True)]
        return [f'"{name}":{{{inside}}}' if inside else "" for inside in joined]


def _json_length(text: str) -> int:
    return len(json.dumps(text))


def _factor_length(value: float) -> int:
    return 0 if math.isnan(value) else len(repr(value))
