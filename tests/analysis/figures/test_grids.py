"""Figures of a ladder whose every answer is known: z_0 paints the left half, z_1 the right one."""

import pytest
import torch

from analysis.figures.gallery import first_rows, most_changed
from analysis.figures.grids import (
    code_of,
    edits,
    face_manifold,
    interpolated,
    layer_swap_picture,
    layer_swaps,
    swaps_of_held_out,
    varied,
)
from analysis.figures.latent_arithmetic import Row, equation
from analysis.model.arithmetic import combine
from tests.analysis.painted import Painter, painted


def test_layer_swaps_take_one_layer_from_each_other_face():
    face = [torch.tensor([[-1.0]]), torch.tensor([[-1.0]])]
    others = [torch.tensor([[0.5], [1.0], [2.0]]), torch.tensor([[0.1], [0.2], [0.3]])]
    swaps = layer_swaps(Painter(), face, others)
    assert swaps.shape == (2, 3, 3, 16, 16)
    left, right = swaps[..., :8].mean((2, 3, 4)), swaps[..., 8:].mean((2, 3, 4))
    held = torch.tensor(-1.0).tanh().expand(3)
    assert torch.allclose(left[0], others[0].tanh()[:, 0]) and torch.allclose(right[0], held)
    assert torch.allclose(right[1], others[1].tanh()[:, 0]) and torch.allclose(left[1], held)


def test_a_swap_picture_has_photographs_reconstructions_and_a_row_for_each_layer():
    context, encoded = painted(20, seed=0)
    codes = [z[:4] for z in encoded.means]
    plain = layer_swap_picture(context.vlae, codes, cell=40)
    with_photographs = layer_swap_picture(context.vlae, codes, torch.zeros(4, 3, 16, 16), cell=40)
    assert with_photographs.height == plain.height + 44
    assert swaps_of_held_out(context, encoded, ["layer 0: left", "layer 1: right"]).width > 9 * 112


def test_varied_faces_start_with_a_typical_one_and_differ():
    _, encoded = painted(60, seed=1)
    chosen = varied(encoded, 4)
    z = torch.cat(encoded.means, 1)
    kinds = {tuple((z[i] > 0).tolist()) for i in chosen[1:]} | {tuple((z[chosen[0]] > 0).tolist())}
    assert len(set(chosen)) == 4 and len(kinds) == 4
    assert len(varied(encoded, 100)) == 60


def test_a_manifold_around_a_face_of_a_layer_with_one_dimension_is_one_row():
    context, encoded = painted(20, seed=2)
    sheet = face_manifold(context.vlae, code_of(encoded, 0), 0, torch.tensor([[1.0]]))
    assert sheet.width > 6 * sheet.height


def test_edits_show_the_photograph_beside_every_row():
    context, encoded = painted(20, seed=3)
    direction = [torch.tensor([[1.0]]), torch.tensor([[0.0]])]
    sheet = edits(context, encoded, {"Left": direction, "Right": direction}, 0)
    assert sheet is not None and sheet.width > 8 * 96 and sheet.height > 2 * 96
    assert edits(context, encoded, {}, 0) is None


def test_the_edits_with_the_largest_measured_change_are_shown():
    metrics = {"edits": {f"a{i}": {"target": i / 20} for i in range(15)} | {"unknown": {"target": None}}}
    assert most_changed(metrics, ()) == [f"a{i}" for i in range(14, 4, -1)]
    assert most_changed({}, ("x", "y")) == ["x", "y"]


def test_the_first_rows_are_photographs_of_the_pairs_that_succeed_most():
    tile = torch.zeros(4, 3, 8, 8)
    rows = [Row(f"{equation(s, 'T')}\n{kind}", tile, kind == "single") for s in "AB" for kind in ("mean", "single")]
    rows.append(Row("three random images", tile, True))
    pairs = [{"s": "A", "t": "T", "success": 0.1}, {"s": "B", "t": "T", "success": 0.9}]
    assert [row.label for row in first_rows(rows, {"arithmetic": {"pairs": pairs}})] == [
        "wanted:\nt,\nnot b",
        "wanted:\nt,\nnot a",
    ]
    assert [row.label for row in first_rows(rows[-1:], {})] == ["three random images"]


def test_interpolation_and_arithmetic_move_only_what_they_should():
    a, b, c = ([torch.full((1, 2), value), torch.full((1, 2), 10 * value)] for value in (1.0, 2.0, 4.0))
    way = interpolated(a, b, [1])
    assert (way[0] == 1).all() and way[1][:, 0].tolist() == pytest.approx([10 + 10 * i / 8 for i in range(9)])
    assert [z[0, 0].item() for z in combine(a, b, c)] == [3.0, 30.0]
