"""The Python API on an exported model: pictures in any form, codes, swaps, edits, the Hub."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import analysis
from analysis.model.arithmetic import add_codes, holding_layers
from analysis.model.images import ImageError
from preprocess.errors import UsageError


@pytest.fixture(scope="module")
def model(export_folder):
    return analysis.load(export_folder, "cpu")


@pytest.fixture(scope="module")
def faces(model):
    return model.faces[:3]


def test_importing_analysis_loads_no_torch():
    words = "import sys, analysis; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", words], check=False).returncode == 0


def test_all_forms_of_pictures_give_the_same_codes(model, faces, tmp_path):
    Image.fromarray(faces[0]).save(tmp_path / "face.png")
    floats = torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 127.5 - 1
    expected = model.encode(faces)
    assert [tuple(z.shape) for z in expected] == [(3, d) for d in model.sizes]
    for images in (list(faces), [Image.fromarray(face) for face in faces], floats, floats.mul(127.5).add(127.5).byte()):
        for one, other in zip(model.encode(images), expected, strict=True):
            torch.testing.assert_close(one, other, atol=2e-2, rtol=1e-2)
    for one, other in zip(model.encode(tmp_path / "face.png"), expected, strict=True):
        torch.testing.assert_close(one, other[:1], atol=1e-4, rtol=1e-4)


def test_a_batch_of_any_size_gives_what_single_images_give(model):
    codes = model.prior(130)
    together = model.decode(codes, "torch")
    alone = model.decode([z[129:] for z in codes], "torch")
    torch.testing.assert_close(together[129:], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.zeros(1, 3, 8, 8), "tensors must be"),
        (torch.full((1, 3, 32, 32), 255.0), "must lie in"),
        (torch.full((1, 3, 32, 32), torch.nan), "must lie in"),
        (np.zeros((4, 4, 3)), "uint8"),
        (np.zeros((4, 4, 4, 4, 4), np.uint8), "NumPy images"),
        ({"a": 1}, "not an image"),
        ([], "no images"),
    ],
)
def test_a_value_that_is_not_an_image_is_refused(model, images, said):
    with pytest.raises(ImageError, match=said):
        model.encode(images)


def test_outputs_come_as_asked(model):
    codes = model.prior(2)
    assert [picture.size for picture in model.decode(codes)] == [(32, 32)] * 2
    assert model.decode(codes, "numpy").shape == (2, 32, 32, 3)
    assert model.decode(codes, "torch").shape == (2, 3, 32, 32)
    with pytest.raises(ImageError, match="output"):
        model.decode(codes, "jax")


def test_swap_arithmetic_and_interpolation_are_what_they_say(model, faces):
    a, b = model.encode(faces[0]), model.encode(faces[1])
    swapped = model.swap(a, b, layers=[1], output="torch")
    torch.testing.assert_close(swapped, model.decode([a[0], b[1], a[2]], "torch"))
    same = model.arithmetic(a, a, b, output="torch")
    torch.testing.assert_close(same, model.decode(b, "torch"), atol=1e-5, rtol=1e-4)
    way = model.interpolate(faces[0], faces[1], steps=3, output="torch")
    torch.testing.assert_close(way[:1], model.decode(a, "torch"), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(way[2:], model.decode(b, "torch"), atol=1e-5, rtol=1e-4)
    with pytest.raises(UsageError, match="layers 0 to 2"):
        model.swap(a, b, layers=7)
    with pytest.raises(ImageError, match="codes must be"):
        model.decode(a[:2])


def test_edits_move_along_the_direction_of_an_attribute(model, faces):
    name = model.attributes[0]
    code = model.encode(faces[0])
    expected = model.decode([z + 2 * d for z, d in zip(code, model.directions(name), strict=True)], "torch")
    torch.testing.assert_close(model.edit(faces[0], name.upper().replace("_", " "), 2.0, output="torch"), expected)
    assert len(model.edit(faces[0], name, strength=[-1, 0, 1])) == 3
    with pytest.raises(UsageError, match="did you mean"):
        model.directions(name[:-1])


def test_arithmetic_with_a_known_attribute_moves_the_layers_that_hold_it_far_enough(model, faces):
    name = model.attributes[0]
    a, b, c = (model.encode(face) for face in faces[:3])
    direction = model.directions(name)
    expected = add_codes(a, b, c, [direction])
    for layer, (z, start) in enumerate(zip(expected, c, strict=True)):
        moved = not torch.allclose(z, start, atol=1e-6)
        assert moved or layer not in holding_layers(direction)
    torch.testing.assert_close(model.arithmetic(a, b, c, name, "torch"), model.decode(expected, "torch"))
    with pytest.raises(UsageError, match="did you mean"):
        model.arithmetic(a, b, c, name[:-1])


def test_samples_of_a_seed_repeat(model):
    assert np.array_equal(model.sample(2, seed=5, output="numpy"), model.sample(2, seed=5, output="numpy"))
    assert not np.array_equal(model.sample(1, 5, "numpy"), model.sample(1, 6, "numpy"))


def test_directions_change_the_picture_in_their_order(model):
    for layer in model.latents:
        assert (layer.change[:-1] >= layer.change[1:]).all()
        gram = layer.directions @ layer.directions.T
        assert gram.shape == (len(layer.mean), len(layer.mean))


def test_a_checkpoint_without_shards_has_directions_too(run):
    model = analysis.load(run / "ckpt.pt", "cpu")
    assert [len(layer.directions) for layer in model.latents] == list(model.sizes)
    with pytest.raises(UsageError, match="analysis export"):
        model.directions("Smiling")


def test_a_model_is_pushed_and_loaded_through_the_mixin(model, tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    model.save_pretrained(tmp_path / "saved")
    card = (tmp_path / "saved/README.md").read_text()
    assert card.startswith("---\nlicense:") and "library_name: mmd-vlae" in card
    again = analysis.LadderModel.from_pretrained(str(tmp_path / "saved"))
    torch.testing.assert_close(again.decode(model.prior(1), "torch"), model.decode(model.prior(1), "torch"))


def test_sums_of_codes_are_no_longer_than_the_prior():
    long, short = torch.full((1, 4), 3.0), torch.full((1, 4), 0.1)
    (result,) = add_codes([long], [-long], [short])
    torch.testing.assert_close(result, torch.full((1, 4), 1.0))  # √4, in the direction of the sum
    (result,) = add_codes([short], [short], [short])
    torch.testing.assert_close(result, short)
