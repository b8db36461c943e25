"""The drawn faces: factors, attributes, pictures, and a data set with the same bytes after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from preprocess.build import executors
from preprocess.errors import UsageError
from preprocess.synthetic.dataset import draw_dataset, partition_ends
from preprocess.synthetic.drawing import draw_face
from preprocess.synthetic.factors import (
    BLOCK,
    FACTOR_NAMES,
    FACTORS,
    IMAGES_PER_IDENTITY,
    derive_attributes,
    sample_factors,
)
from tests.preprocess.trees import invoke

CONTINUOUS = [factor for factor in FACTORS if factor.share is None]
PLAIN = {factor.name: (factor.low + factor.high) / 2 for factor in FACTORS} | {"glasses": 0.0, "beard": 0.0}


def test_killed_drawing_process_gives_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> Iterator[tuple[int, int]]:
        raise BrokenProcessPool("a process was terminated abruptly")
        yield 0, 0

    monkeypatch.setattr(executors, "_run_until_a_death", killed)
    done = invoke("faces", "--out", tmp_path / "tree", "--count", 100, "--workers", 2)
    assert done.exit_code == 1
    assert "the faces drawn so far are kept; run the same command again" in done.stderr


def ignore(drawn: int) -> None:
    """Takes progress and ignores it."""


def contents(tree: Path) -> dict[str, bytes]:
    """Every file under `tree`, hidden ones too."""
    return {str(path.relative_to(tree)): path.read_bytes() for path in sorted(tree.rglob("*")) if path.is_file()}


def as_trained(face: np.ndarray) -> np.ndarray:
    """Center crop of 148, resized to 64: float32 [64, 64, 3]."""
    cropped = Image.fromarray(face[35:183, 15:163])
    return np.asarray(cropped.resize((64, 64), Image.Resampling.BILINEAR), np.float32)


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    """The factors of 2,048 faces: float64 [2048, factors]."""
    return np.array([list(sample_factors(5, index).values()) for index in range(8 * BLOCK)])


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """100 faces of seed 3."""
    out = tmp_path_factory.mktemp("drawn") / "tree"
    draw_dataset(out, count=100, seed=3, workers=1, advance=ignore)
    return out


# ---- factors and attributes


def test_factors_are_evenly_spread_over_their_ranges(table):
    for factor, values in zip(FACTORS, table.T, strict=True):
        assert factor.low <= values.min() and values.max() <= factor.high
        if factor.share is not None:
            assert set(values) == {0.0, 1.0} and abs(values.mean() - factor.share) < 0.01
            continue
        uniform = (np.sort(values) - factor.low) / (factor.high - factor.low)
        expected = (np.arange(len(uniform)) + 0.5) / len(uniform)
        assert np.abs(uniform - expected).max() < 0.02, factor.name  # Kolmogorov-Smirnov's distance


def test_factors_are_independent(table):
    people = table[::IMAGES_PER_IDENTITY]
    personal = np.array([factor.personal for factor in FACTORS])
    off_diagonal = ~np.eye(personal.sum(), dtype=bool)
    assert np.abs(np.corrcoef(people[:, personal].T))[off_diagonal].max() < 4.5 / np.sqrt(len(people))
    correlation = np.abs(np.corrcoef(table.T))
    correlation[np.ix_(personal, personal)] = 0
    np.fill_diagonal(correlation, 0)
    assert correlation.max() < 4.5 / np.sqrt(len(table))


def test_image_does_not_depend_on_earlier_samples():
    alone = sample_factors(1, 700)
    for index in (0, 300, 2000):
        sample_factors(1, index)
    assert sample_factors(1, 700) == alone
    assert sample_factors(2, 700) != alone


def test_images_of_one_person_share_the_shape_and_not_the_pose():
    first, second = sample_factors(0, 8), sample_factors(0, 9)
    for factor in CONTINUOUS:
        assert (first[factor.name] == second[factor.name]) == factor.personal, factor.name


def test_every_attribute_has_both_values_often(table):
    rows = [derive_attributes(dict(zip(FACTOR_NAMES, row, strict=True))) for row in table]
    for name in rows[0]:
        assert 0.15 <= np.mean([row[name] for row in rows]) <= 0.85, name


# ---- pictures


def test_a_face_is_a_function_of_its_factors():
    face = draw_face(sample_factors(0, 4))
    assert face.shape == (218, 178, 3) and face.dtype == np.uint8
    assert np.array_equal(face, draw_face(sample_factors(0, 4)))


@pytest.mark.parametrize("factor", FACTORS, ids=lambda factor: factor.name)
def test_every_factor_is_visible_at_64_pixels_and_keeps_changing(factor):
    values = [factor.low, factor.high] if factor.share else np.linspace(factor.low, factor.high, 4)
    small = [as_trained(draw_face(PLAIN | {factor.name: float(value)})) for value in values]
    change = np.abs(small[-1] - small[0])
    assert change.mean() > 1.0
    assert (change.max(axis=-1) > 20).sum() > 60  # of 4,096 pixels
    # no part of the range may be hidden, by the crop for example
    steps = [np.abs(after - before).mean() for before, after in pairwise(small)]
    assert min(steps) > 0.3


@pytest.mark.parametrize("extreme", ["low", "high"])
def test_all_factors_at_their_ends_still_make_a_picture(extreme):
    face = draw_face({factor.name: getattr(factor, extreme) for factor in FACTORS})
    assert face.std() > 10


def test_light_comes_from_the_named_side():
    right = draw_face(PLAIN | {"light_direction": 1.0})[100:160].astype(float)
    assert right[:, 95:125].mean() > right[:, 53:83].mean() + 10


# ---- the tree


def test_the_annotations_have_celebas_format(tree):
    names = [f"{number:06d}.jpg" for number in range(1, 101)]
    assert sorted(path.name for path in (tree / "img_align_celeba").iterdir()) == names
    count, header, *rows = (tree / "list_attr_celeba.txt").read_text().splitlines()
    assert count == "100" and len(rows) == 100
    for index, row in enumerate(rows):
        name, *values = row.split()
        truth = derive_attributes(sample_factors(3, index))
        assert name == names[index] and header.split() == list(truth)
        assert values == ["1" if value else "-1" for value in truth.values()]
    partition = dict(line.split() for line in (tree / "list_eval_partition.txt").read_text().splitlines())
    person = dict(line.split() for line in (tree / "identity_CelebA.txt").read_text().splitlines())
    assert list(partition) == list(person) == names
    assert [list(partition.values()).count(part) for part in "012"] == [80, 8, 12]
    for part in "12":
        inside = {person[name] for name in names if partition[name] == part}
        assert not inside & {person[name] for name in names if partition[name] != part}


def test_factors_csv_holds_the_exact_factors(tree):
    header, *rows = (tree / "factors.csv").read_text().splitlines()
    assert header == "image," + ",".join(FACTOR_NAMES)
    name, *values = rows[41].split(",")
    factors = dict(zip(FACTOR_NAMES, map(float, values), strict=True))
    assert name == "000042.jpg" and factors == sample_factors(3, 41)
    stored = simplejpeg.decode_jpeg((tree / "img_align_celeba" / name).read_bytes())
    assert np.abs(stored.astype(int) - draw_face(factors)).mean() < 3


@pytest.mark.parametrize("count", [1, 2, 5, 30, 100, 12_000, 202_599])
def test_partitions_are_in_order_and_fill_the_set(count):
    train_end, valid_end = partition_ends(count)
    assert 0 < train_end <= valid_end <= count
    if count >= 30:
        assert abs(train_end / count - 0.803) < 0.03 and valid_end < count


def test_the_number_of_workers_does_not_change_a_byte(tree, tmp_path):
    drawn: list[int] = []
    draw_dataset(tmp_path / "tree", count=100, seed=3, workers=2, advance=drawn.append)
    assert contents(tmp_path / "tree") == contents(tree)
    assert sum(drawn) == 100


def test_a_rerun_draws_only_what_is_missing(tree, tmp_path):
    out = tmp_path / "tree"
    draw_dataset(out, count=100, seed=3, workers=1, advance=ignore)
    images = out / "img_align_celeba"
    kept = (images / "000001.jpg").stat().st_mtime_ns
    for name in ("000002.jpg", "000077.jpg"):
        (images / name).unlink()
    (images / "000050.jpg").write_bytes(b"")  # as after a power cut
    (images / ".000002.jpg.tmp").write_bytes(b"half a face")  # as after a kill
    (out / "list_attr_celeba.txt").unlink()
    drawn: list[int] = []
    draw_dataset(out, count=100, seed=3, workers=1, advance=drawn.append)
    assert sum(drawn) == 3
    assert (images / "000001.jpg").stat().st_mtime_ns == kept
    assert contents(out) == contents(tree)


def test_a_killed_run_is_finished_with_the_same_bytes_and_leaves_no_worker(tmp_path):
    out, whole = tmp_path / "killed", tmp_path / "whole"
    script = tmp_path / "draw.py"
    script.write_text(
        "import sys; from pathlib import Path; from preprocess.synthetic.dataset import draw_dataset\n"
        "if __name__ == '__main__':\n"
        "    draw_dataset(Path(sys.argv[1]), count=400, seed=1, workers=2, advance=lambda n: None)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    run = subprocess.Popen([sys.executable, script, out], env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not any((out / "img_align_celeba").glob("*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    assert run.stderr is not None
    run.stderr.read()  # ends only when every worker, which shares it, has ended
    run.wait()
    run.stderr.close()
    assert not (out / "list_attr_celeba.txt").exists()
    draw_dataset(out, count=400, seed=1, workers=1, advance=ignore)
    draw_dataset(whole, count=400, seed=1, workers=1, advance=ignore)
    assert contents(out) == contents(whole)


@pytest.mark.parametrize("other", [{"seed": 4}, {"count": 99}])
def test_another_data_set_in_the_same_folder_is_refused(tree, other):
    before = contents(tree)
    with pytest.raises(UsageError, match="holds other drawn faces"):
        draw_dataset(tree, **({"count": 100, "seed": 3} | other), workers=1, advance=ignore)
    assert contents(tree) == before


def test_foreign_images_and_unreadable_markers_are_refused(tmp_path):
    (tmp_path / "celeba" / "img_align_celeba").mkdir(parents=True)
    with pytest.raises(UsageError, match="not drawn here"):
        draw_dataset(tmp_path / "celeba", count=1, seed=0, workers=1, advance=ignore)
    (tmp_path / "faces.json").write_text("{")
    with pytest.raises(UsageError, match="not readable"):
        draw_dataset(tmp_path, count=1, seed=0, workers=1, advance=ignore)


def test_the_marker_names_seed_count_and_drawing(tree):
    assert set(json.loads((tree / "faces.json").read_text())) == {"seed", "count", "drawing"}
