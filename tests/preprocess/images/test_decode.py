"""Every type of image file becomes the right RGB pixels, or is refused with a reason."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import simplejpeg
from PIL import Image, features

from preprocess.errors import UnreadableImage
from preprocess.images import decode as decoding
from preprocess.images.decode import Decoder
from tests.preprocess.trees import encoded, jpeg, smooth_picture

PICTURE = smooth_picture(4)


def decode(data: bytes) -> np.ndarray:
    return Decoder().rgb(data).copy()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "JPEG2000"])
def test_lossless_kinds_are_exact(kind: str) -> None:
    options = {"WEBP": {"lossless": True}}.get(kind, {})
    assert np.array_equal(decode(encoded(Image.fromarray(PICTURE), kind, **options)), PICTURE)


def test_jpeg_is_simplejpegs(capsys: pytest.CaptureFixture) -> None:
    assert np.array_equal(decode(jpeg(4)), simplejpeg.decode_jpeg(jpeg(4)))
    progressive = encoded(Image.fromarray(PICTURE), "JPEG", progressive=True, quality=95)
    assert np.abs(decode(progressive).astype(int) - PICTURE).mean() < 2


def test_gray_becomes_three_equal_channels() -> None:
    gray = Image.fromarray(PICTURE).convert("L")
    for kind in ("PNG", "JPEG"):
        pixels = decode(encoded(gray, kind))
        assert pixels.shape == PICTURE.shape
        assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    wide = np.linspace(0, 65535, 178 * 218).reshape(218, 178).astype(np.uint16)
    pixels = decode(encoded(Image.fromarray(wide), "PNG"))
    assert np.abs(pixels[..., 0] - wide / 257.0).max() <= 0.5


def test_transparent_pixels_become_white() -> None:
    layers = np.dstack([PICTURE, np.zeros(PICTURE.shape[:2], np.uint8)])
    layers[:100, :, 3] = 255
    pixels = decode(encoded(Image.fromarray(layers), "PNG"))
    assert np.array_equal(pixels[:100], PICTURE[:100])
    assert (pixels[100:] == 255).all()


def test_palette_and_cmyk() -> None:
    palette = Image.fromarray(PICTURE).quantize(64)
    assert np.array_equal(decode(encoded(palette, "PNG")), np.asarray(palette.convert("RGB")))
    cmyk = encoded(Image.fromarray(PICTURE).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decode(cmyk).astype(int) - PICTURE).mean() < 4


def test_ycck_does_not_depend_on_earlier_images() -> None:
    """simplejpeg would decode it too, to pixels that differ by one from Pillow's."""
    cmyk = bytearray(encoded(Image.fromarray(PICTURE).convert("CMYK"), "JPEG", quality=95))
    cmyk[cmyk.index(b"Adobe") + 11] = 2  # the first three channels are YCC instead of CMY
    decoder = Decoder()
    first = decoder.rgb(bytes(cmyk)).copy()
    decoder.rgb(jpeg(1))
    assert np.array_equal(decoder.rgb(bytes(cmyk)), first)
    assert np.array_equal(first, np.asarray(Image.open(io.BytesIO(cmyk)).convert("RGB")))


@pytest.mark.skipif(not features.check("avif"), reason="Pillow was built without AVIF")
def test_avif() -> None:
    assert np.abs(decode(encoded(Image.fromarray(PICTURE), "AVIF", quality=95)).astype(int) - PICTURE).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    image = Image.fromarray(PICTURE)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, "JPEG", quality=95, exif=exif.tobytes())
    turned = decode(data).astype(int)
    turns = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}
    flipped = {2, 4}
    expected = PICTURE[:, ::-1] if orientation in flipped else PICTURE
    if orientation in {5, 7}:
        expected = PICTURE[:, ::-1]
        turns = {5: 1, 7: 3}
    expected = np.rot90(expected, turns[orientation])
    assert turned.shape == expected.shape
    assert np.abs(turned - expected).mean() < 2


def test_a_cut_jpeg_with_exif_is_refused() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(PICTURE), "JPEG", exif=exif.tobytes())
    with pytest.raises(UnreadableImage, match="damaged JPEG"):
        decode(data[: len(data) * 2 // 3] + b"\xff\xd9")


def png_bomb(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg_bomb() -> bytes:
    data = bytearray(jpeg(1))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65500, 65500)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello, I am no image", "not an image"),
        (b"<html>quota</html>", "not an image: a web page"),
        (b"%PDF-1.7 ...", "not an image: a PDF document"),
        (b"\xff\x0a" + bytes(50), "a JPEG XL picture; convert it"),
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", "HEIC picture|damaged image"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"GIF8 nonsense", "a GIF picture that cannot be decoded"),
        (jpeg(1)[:3000], "damaged JPEG"),
        (jpeg(1)[:30], "damaged JPEG"),
        (b"\xff\xd8\xff", "damaged JPEG"),
        (jpeg_bomb(), "is more than .* pixels; shrink it first"),
        (png_bomb(12_000, 10_000), "is more than"),
        (png_bomb(60_000, 60_000), "more than"),
        (encoded(Image.fromarray(PICTURE), "PNG")[:5000], "damaged image"),
        (encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "floating-point"),
        (encoded(Image.fromarray(np.full((4, 4), 200, np.int32)), "TIFF"), "32-bit pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
    ],
)
def test_unreadable_files_have_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=reason):
        decode(data)


def test_one_decoder_reads_many_sizes() -> None:
    decoder = Decoder()
    for number, (width, height) in enumerate([(178, 218), (20, 10), (300, 400), (1, 1)]):
        data = jpeg(number, width, height)
        assert np.array_equal(decoder.rgb(data), simplejpeg.decode_jpeg(data))


def test_two_frames_give_the_first() -> None:
    out = io.BytesIO()
    frames = [Image.fromarray(smooth_picture(n)).quantize(32) for n in (1, 2)]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    assert np.abs(decode(out.getvalue()).astype(int) - np.asarray(frames[0].convert("RGB"))).max() <= 8


def test_heic_is_read_by_pillow_heif() -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    assert np.abs(decode(encoded(Image.fromarray(PICTURE), "HEIF", quality=95)).astype(int) - PICTURE).mean() < 2


def test_heic_without_pillow_heif_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_readable_formats", lambda: ["PNG"])
    with pytest.raises(UnreadableImage, match=r"a HEIC picture; .*pip install 'mmd-vlae"):
        decode(b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + bytes(100))


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_huge_jpeg_is_reduced_where_that_is_allowed(orientation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = smooth_picture(5, 400, 200)
    data = encoded(Image.fromarray(picture), "JPEG", quality=95, exif=exif.tobytes())
    monkeypatch.setattr(decoding, "MAX_PIXELS", 20_000)
    pixels = Decoder().rgb(data, reduce=True)
    expected = np.rot90(picture, 3) if orientation == 6 else picture
    assert pixels.shape == (expected.shape[0] // 2, expected.shape[1] // 2, 3)
    assert np.abs(pixels.astype(int) - expected[::2, ::2]).mean() < 5
