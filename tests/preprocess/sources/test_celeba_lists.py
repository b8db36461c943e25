"""Annotation lists as spreadsheets, mirrors and pandas write them."""

from __future__ import annotations

import codecs

import numpy as np
import pytest

from preprocess.errors import UsageError
from preprocess.shards.annotations import NO_LANDMARK
from preprocess.sources.celeba_lists import (
    list_key,
    read_attributes,
    read_factors,
    read_identities,
    read_landmarks,
    read_partition,
)

ROWS = [("000001.jpg", "1", "-1"), ("000002.jpg", "-1", "1"), ("000003.jpg", "1", "1")]
EXPECTED = [[1, 0], [0, 1], [1, 1]]


def table(separator: str, header: tuple[str, ...] = ("image_id", "Male", "Smiling")) -> str:
    return "\r\n".join(separator.join(row) for row in [header, *ROWS]) + "\r\n"


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", " "], ids=["comma", "semicolon", "tab", "bar", "blank"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_separators_and_encodings(separator: str, encoding: str) -> None:
    found = read_attributes(table(separator).encode(encoding), "list")
    assert found.names == ("Male", "Smiling")
    assert found.values.tolist() == EXPECTED


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\n" + table(";"),
        "3\nMale Smiling \n" + "".join(" ".join(row) + "\n" for row in ROWS),
        "3\r" + table(" ", ("Male", "Smiling")).replace("\r\n", "\r"),
        ",image_id,Male,Smiling\n" + "".join(f"{i},{','.join(row)}\n" for i, row in enumerate(ROWS)),
        '"image_id";"Male";"Smiling"\n' + "".join(";".join(f'"{cell}"' for cell in row) + "\n" for row in ROWS),
        "# made by hand\n" + table(","),
        "".join(f"{line},,\n" for line in table(",").splitlines()) + ",,,,\n",
        "\n".join([table(",").splitlines()[0], *(f"{line}," for line in table(",").splitlines()[1:])]),
        "Male,Smiling,image_id\n" + "".join(f"{a},{b},{name}\n" for name, a, b in ROWS),
        table(",") + table(","),
        "202,599\nMale Smiling\n" + "".join(" ".join(row) + "\n" for row in ROWS),
        "Male\t\tSmiling\n" + "".join("\t\t".join(row) + "\n" for row in ROWS),
    ],
    ids=[
        *("Excel's sep=", "official", "old Mac line ends", "pandas' row numbers", "quotes", "comment", "empty columns"),
        *("rows end with a separator", "files last", "twice", "count", "tabs"),
    ],
)
def test_forms_of_attribute_lists(text: str) -> None:
    found = read_attributes(text.encode(), "list")
    assert found.names == ("Male", "Smiling")
    assert found.values.tolist() == EXPECTED


@pytest.mark.parametrize(
    ("yes", "no"),
    [
        ("1", "-1"),
        ("1", "0"),
        ("True", "False"),
        ("1.0", "-1.0"),
        ("1.0", "0.0"),
        ("TRUE", "FALSE"),
        ("1,0", "-1,0"),
        ("1.00", "-1e0"),
        ("Y", "n"),
        ("1", "\u22121"),
    ],
)
def test_values_of_attributes(yes: str, no: str) -> None:
    found = read_attributes(f"image;A;B\na.jpg;{yes};{no}\nb.jpg;;{yes}\n".encode(), "list")
    assert found.values.tolist() == [[1, 0], [-1, 1]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,A,B\na.jpg,0,-1\nb.jpg,1,1\n", "both 0 and -1"),
        ("image,A\na.jpg,2\n", "line 2: '2' is not an attribute's 1 or -1"),
        ("image,A\na.jpg,0.5\n", "line 2: '0.5' is not"),
        ("a.jpg,1,0\nb.jpg,0,1\n", "has no header: add a first line"),
        ("image,A,A\na.jpg,1,0\n", "two columns called 'A'"),
        ("image,A\na.jpg,1\na.jpg,0\n", "line 3: a.jpg is listed twice, with other values"),
        ("image,A\n", "lists no images"),
        ("image\na.jpg\nb.jpg\n", "no columns beside the images' names"),
        ("image/a\na.jpg/1\n", "no columns beside the images' names"),
        (
            "PK\x03\x04\x14\x00\x06\x00" + "\x00" * 30,
            "an Excel workbook or zip archive, not a text file: save it as CSV",
        ),
        ("\x89PNG\r\n\x1a\n\x00\x00", "a PNG picture, not a text file"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("", "is empty"),
    ],
)
def test_a_file_that_is_not_a_list_is_named(text: str, words: str) -> None:
    with pytest.raises(UsageError) as error:
        read_attributes(text.encode("latin-1"), "list_attr_celeba.csv")
    assert words in str(error.value)
    assert "list_attr_celeba.csv" in str(error.value)


def test_names_with_blanks_and_accents() -> None:
    found = read_attributes(b"1\nMale Smiling\nmy face 1.jpg 1 -1\n", "list")
    assert found.files == ["my face 1.jpg"]
    found = read_attributes("image,A\nJosé.jpg,1\n".encode("cp1252"), "list")
    assert found.files == ["José.jpg"]
    assert "Windows-1252" in found.notes[0]


def test_images_are_found_by_their_names() -> None:
    found = read_attributes("image,A\nZoë.JPG,1\na.b.1,0\na.b.2,1\nC:\\faces\\x.png,1\n".encode(), "list")
    assert [list_key(name) in found.rows for name in ("dir/Zoe\u0308.png", "a.b.1.jpg", "a.b.2", "x")] == [True] * 4


def test_partitions_and_identities_as_pandas_writes_them() -> None:
    text = b",image_id,partition\n0,a.jpg,0.0\n1,b.jpg,2.0\n2,c.jpg,\n"
    assert read_partition(text, "list").values.ravel().tolist() == [0, 2, -1]
    assert read_partition(b"image_id;partition\na.jpg;val\nb.jpg;TEST\n", "list").values.ravel().tolist() == [1, 2]
    assert read_identities(b"image;id\na.jpg;7.0\nb.jpg;\n", "list").values.ravel().tolist() == [7, -1]
    assert read_identities(b"id,image\n7,a.jpg\n-1,b.jpg\n", "list").values.ravel().tolist() == [7, -1]
    assert read_identities("a.jpg 7\n".encode("utf-16"), "list").values.ravel().tolist() == [7]


def test_factors_and_landmarks_of_european_spreadsheets() -> None:
    found = read_factors(codecs.BOM_UTF8 + b"image;yaw;smile\na.jpg;-0,25;\nb.jpg;1,5;NaN\n", "factors.csv")
    assert found.names == ("yaw", "smile")
    assert found.values[:, 0].tolist() == [-0.25, 1.5] and np.isnan(found.values[:, 1]).all()
    assert read_landmarks(b"image;x;y\na.jpg;69.4;\n", "list").values.tolist() == [[69, NO_LANDMARK]]
