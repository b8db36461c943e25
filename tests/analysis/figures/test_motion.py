"""Frames along directions and GIFs."""

import io

import torch
from PIL import Image

from analysis.figures.motion import FRAMES, decode_codes, gif_bytes, traversal_frames
from tests.analysis.painted import Painter


def test_the_middle_frame_is_the_image_itself_and_only_one_layer_moves():
    code = [torch.tensor([[0.3]]), torch.tensor([[-0.4]])]
    frames = traversal_frames(Painter(), code, 1, torch.tensor([2 / 3]))
    assert frames.shape == (FRAMES, 3, 16, 16)
    assert torch.allclose(frames[FRAMES // 2], decode_codes(Painter(), code)[0], atol=1e-6)
    assert torch.allclose(frames[..., :8], frames[:1, ..., :8].expand(FRAMES, -1, -1, -1))
    expected = (torch.linspace(-2, 2, FRAMES) - 0.4).tanh()
    assert torch.allclose(frames[:, 0, 0, 12], expected, atol=1e-6)


def test_a_gif_runs_forward_and_back_endlessly(tmp_path):
    shades = torch.linspace(-1, 1, 4).view(4, 1, 1, 1).expand(4, 3, 8, 12)
    picture = Image.open(io.BytesIO(gif_bytes(shades, side=16)))
    assert picture.n_frames == 6 and picture.size == (24, 16) and picture.info["loop"] == 0
