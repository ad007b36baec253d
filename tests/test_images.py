"""Pictures read as deep as they are stored, and PNG and TIFF files written in pieces, checked by other readers."""

import io
import struct
import zlib

import imageio.v3 as iio
import numpy as np
import pytest

from fastsiren import images, png
from fastsiren.faults import InputError
from fastsiren.render.tiff import tiff_header

SIZES = [(1, 1), (1, 7), (7, 1), (37, 53)]


def picture(height, width, channels, bits, seed=0):
    """Smooth ramps with noise, so that every row filter of PNG has its turn, over the whole range."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    ramp = (rows * 40 + columns * 90)[:, :, None] * (1 + np.arange(channels)) + rng.integers(
        0, 30, (height, width, channels)
    )
    values = (ramp * 257 if bits == 16 else ramp) + rng.integers(0, 2, ramp.shape)
    values = values % 2**bits
    values.reshape(-1)[:1] = 2**bits - 1
    return values.astype(np.uint8 if bits == 8 else np.uint16)


def written(pixels, piece=10):
    file = io.BytesIO()
    height, width, channels = pixels.shape
    writer = png.PngWriter(file, width, height, channels=channels, bits=pixels.itemsize * 8)
    for row in range(0, height, piece):
        writer.write_rows(pixels[row : row + piece])
    writer.close()
    return file.getvalue()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_png_round_trip(tmp_path, bits, channels, size):
    pixels = picture(*size, channels, bits)
    (tmp_path / "a.png").write_bytes(written(pixels))
    found = images.read(tmp_path / "a.png")
    assert found.bits == bits
    assert found.pixels.dtype == pixels.dtype
    np.testing.assert_array_equal(found.pixels, pixels)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_files_are_right_for_another_reader(tmp_path, channels):
    pixels = picture(37, 53, channels, 8)
    np.testing.assert_array_equal(iio.imread(written(pixels)).reshape(pixels.shape), pixels)


def test_grey_16_bit_png_is_right_for_another_reader():
    pixels = picture(37, 53, 1, 16)
    np.testing.assert_array_equal(iio.imread(written(pixels)), pixels[:, :, 0])


@pytest.mark.parametrize("kind", range(5))
def test_every_row_filter_is_undone(tmp_path, kind):
    """Rows are filtered here by the definition, byte by byte."""
    pixels = picture(6, 5, 3, 16, seed=kind)
    raw = pixels.astype(">u2").view(np.uint8).reshape(6, -1).astype(int)
    lines = b""
    for r in range(6):
        line = [kind]
        for i in range(raw.shape[1]):
            a = raw[r, i - 6] if i >= 6 else 0
            b = raw[r - 1, i] if r else 0
            c = raw[r - 1, i - 6] if r and i >= 6 else 0
            nearest = min((a, b, c), key=lambda v: abs(a + b - c - v))
            line.append((raw[r, i] - (0, a, b, (a + b) // 2, nearest)[kind]) % 256)
        lines += bytes(line)
    np.testing.assert_array_equal(png.read_16_bit(file_of(lines, 5, 6)), pixels)


def file_of(lines, width, height, interlace=0):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, interlace)
    return png.SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [*SIZES, (700, 600)], ids=str)
def test_tiff_round_trip(tmp_path, size, channels, bits):
    tifffile = pytest.importorskip("tifffile")
    pixels = picture(*size, channels, bits)
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_header(size[1], size[0], channels=channels, bits=bits) + pixels.tobytes())
    np.testing.assert_array_equal(tifffile.imread(path).reshape(pixels.shape), pixels)
    np.testing.assert_array_equal(images.read(path).pixels, pixels)


def test_large_tiff_is_a_bigtiff_whose_strips_reach_its_end():
    header = tiff_header(70_000, 70_000, channels=3, bits=8)
    assert header[:8] == struct.pack("<2sHHH", b"II", 43, 8, 0)
    tags = {
        tag: (kind, count, value)
        for tag, kind, count, value in (struct.unpack_from("<HHQQ", header, 24 + 20 * i) for i in range(header[16]))
    }
    _, strips, place = tags[273]
    offsets = struct.unpack_from(f"<{strips}Q", header, place)
    sizes = struct.unpack_from(f"<{strips}Q", header, tags[279][2])
    assert offsets[0] == len(header)
    assert offsets[-1] + sizes[-1] == len(header) + 70_000 * 70_000 * 3


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.bmp", "a.gif", "a.tiff"])
def test_other_formats_are_read(tmp_path, name):
    pixels = np.full((9, 11, 3), 128, np.uint8)
    iio.imwrite(tmp_path / name, pixels)
    found = images.read(tmp_path / name).pixels
    assert found.shape == pixels.shape
    assert abs(found.astype(int) - 128).max() <= 3


def test_palette_and_one_bit_pictures_become_ordinary_samples(tmp_path):
    from PIL import Image

    Image.fromarray(picture(8, 8, 3, 8)).convert("P").save(tmp_path / "p.png")
    assert images.read(tmp_path / "p.png").pixels.shape == (8, 8, 3)
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).convert("1").save(tmp_path / "b.png")
    np.testing.assert_array_equal(images.read(tmp_path / "b.png").pixels[:, :, 0], np.eye(8, dtype=np.uint8) * 255)


def test_rotation_by_the_camera_is_applied(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.zeros((8, 20, 3), np.uint8)).save(tmp_path / "r.jpg", exif=exif)
    assert images.read(tmp_path / "r.jpg").pixels.shape == (20, 8, 3)


def damaged_pictures():
    good = written(picture(37, 53, 3, 16))
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    return {
        "empty": (b"", "empty"),
        "text": (b"hello\n" * 50, "not a picture"),
        "cut": (good[: len(good) // 2], "truncated"),
        "flipped": (bytes(flipped), "damaged"),
        "claim": (file_of(b"", 30_000, 30_000), "far too short"),
        "huge claim": (file_of(b"", 2**31 - 1, 2**31 - 1), "claims 2147483647x2147483647"),
        "short data": (file_of(b"\0" * 40, 5, 6), "ends early"),
        "interlaced": (file_of(b"\0" * 186, 5, 6, interlace=1), "interlac"),
        "filter": (file_of(b"\7" + b"\0" * 30, 5, 1), "row filter 7"),
        "zero size": (file_of(b"", 0, 0), "no pixels"),
    }


@pytest.mark.parametrize("name", damaged_pictures())
def test_damaged_pictures_are_refused(tmp_path, name):
    data, words = damaged_pictures()[name]
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(InputError, match=words) as caught:
        images.read(tmp_path / "a.png")
    assert "\n" not in str(caught.value)
    assert "a.png" in str(caught.value)


def test_missing_file_directory_and_float_samples_are_refused(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "f.tif", np.zeros((4, 4), np.float32))
    for path, words in (
        (tmp_path / "none.png", "no such file"),
        (tmp_path, "directory"),
        (tmp_path / "f.tif", "float32"),
    ):
        with pytest.raises(InputError, match=words):
            images.read(path)


def test_samples_cover_the_range_exactly():
    for dtype in (np.uint8, np.uint16):
        ends = images.Picture(np.array([[[0], [np.iinfo(dtype).max]]], dtype)).normalised()
        assert ends[:, 0].tolist() == [-1.0, 1.0]


def test_psnr_agrees_with_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 20, 20))
    assert abs(images.psnr(((a - b) ** 2).mean()) - metrics.peak_signal_noise_ratio(a, b, data_range=1)) <= 1e-9
    assert images.psnr(0.0) == float("inf")
