"""The command line as users meet it: what it prints, which exit code it gives, what it leaves behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import fastsiren
from fastsiren import cli, tensorfile
from fastsiren.fit import checkpoint
from fastsiren.images import Picture
from fastsiren.problems import image
from fastsiren.tensorfile import TensorFile

SMALL = ["--hidden", "16", "--layers", "1", "--batch", "64"]


@pytest.fixture(autouse=True)
def process_stays_as_it_was():
    """The program sets its own handler of SIGTERM; a second thread only costs time with networks this small."""
    handler, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A checkpoint of a small RGB picture of 16 bits, 14 pixels wide and 9 high."""
    home = tmp_path_factory.mktemp("fitted")
    rows, columns = np.mgrid[0:1:9j, 0:1:14j]
    pixels = (np.stack([rows, columns, rows * columns], -1) * 65535).astype(np.uint16)
    image.fit(Picture(pixels), out=home / "a.safetensors", steps=5, hidden=8, layers=1, progress=False)
    return home / "a.safetensors"


@pytest.fixture
def photo(tmp_path):
    """A small grey picture in a file."""
    pixels = np.linspace(0, 255, 120).astype(np.uint8).reshape(10, 12)
    iio.imwrite(tmp_path / "photo.png", pixels)
    return tmp_path / "photo.png"


def call(*words):
    """Run the program in this process; the exit code."""
    try:
        return cli.main([str(word) for word in words])
    except SystemExit as leaving:
        return leaving.code


def start(*words, text=True):
    """Run the program in a process of its own."""
    command = [sys.executable, "-m", "fastsiren", *map(str, words)]
    return subprocess.Popen(command, text=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def one_line(text):
    assert text.startswith("fastsiren: error: "), text
    assert text.count("\n") == 1, text
    assert "Traceback" not in text
    return text


def test_fit_info_render(tmp_path, photo, capsys):
    out = tmp_path / "photo.safetensors"
    assert call("fit", photo, "-o", out, "--steps", 30, "--seed", 3, "--log", tmp_path / "log", *SMALL) == 0
    shown = capsys.readouterr()
    assert "PSNR" in shown.out
    assert "30 steps" in shown.out
    assert "step/s" in shown.err
    assert len((tmp_path / "log").read_text().splitlines()) == 30

    assert call("info", out) == 0
    shown = capsys.readouterr().out
    for words in (
        "2 -> 16 -> 16 -> 1",
        "SHA-256 ok",
        "12x10 grey, 8 bits",
        "step 30 of 30",
        " dB",
        "first 30, hidden 30",
    ):
        assert words in shown

    assert call("render", out, "-o", tmp_path / "big.png", "--size", "40x30") == 0
    assert "40x30" in capsys.readouterr().out
    net = checkpoint.load(out).net
    grid = fastsiren.grids.Grid.over((30, 40))
    values = fastsiren.render(net, grid, progress=False)[..., 0].numpy()
    expected = np.rint(np.clip(values * np.float32(0.5) + np.float32(0.5), 0, 1) * 255)
    np.testing.assert_array_equal(iio.imread(tmp_path / "big.png"), expected)
    assert sorted(os.listdir(tmp_path)) == ["big.png", "log", "photo.png", "photo.safetensors"]


def test_render_keeps_size_and_depth_of_the_original(tmp_path, fitted):
    from fastsiren import images

    for name, bits in (("a.png", 16), ("a.tiff", 16), ("a.jpg", 8)):
        assert call("render", fitted, "-o", tmp_path / name, "--quiet") == 0
        found = images.read(tmp_path / name)
        assert (found.pixels.shape, found.bits) == ((9, 14, 3), bits)
    assert call("render", fitted, "-o", tmp_path / "b.png", "--scale", "2.5", "--bits", "8", "--quiet") == 0
    assert images.read(tmp_path / "b.png").pixels.shape == (22, 35, 3)
    assert images.read(tmp_path / "b.png").bits == 8
    for quantity in ("gradient", "laplacian"):
        assert call("render", fitted, "-o", tmp_path / f"{quantity}.npy", "--quantity", quantity, "--quiet") == 0
    assert np.load(tmp_path / "gradient.npy").shape == (9, 14, 3, 2)


def test_the_defaults_in_the_help_are_the_ones_in_force(capsys):
    assert call("fit", "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, value in vars(image.Settings()).items():
        assert re.search(rf"--{name} [A-Z]+ [^-]*\(default: {value:g}\)", shown), name


def test_quiet_says_nothing(tmp_path, photo, capsys):
    assert call("fit", photo, "-o", tmp_path / "a", "--steps", 2, "--quiet", *SMALL) == 0
    assert call("render", tmp_path / "a", "-o", tmp_path / "a.png", "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_info_tells_versions_backends_and_threads(capsys):
    assert call("info") == 0
    shown = capsys.readouterr().out
    assert f"torch {torch.__version__.split('+')[0]}" in shown
    for name in ("reference", "cpp", "triton"):
        assert f"backend {name}" in shown
    assert f"threads           {torch.get_num_threads()} of" in shown


USAGE = [
    ([], "COMMAND"),
    (["paint"], "invalid choice"),
    (["fit"], "required"),
    (["fit", "PHOTO"], "-o/--out"),
    (["fit", "PHOTO", "-o", "OUT", "--steps", "0"], "--steps must be a whole number of 1 or more; got 0"),
    (["fit", "PHOTO", "-o", "OUT", "--steps", "many"], "invalid int"),
    (["fit", "PHOTO", "-o", "OUT", "--lr", "nan"], "--lr must be a positive number"),
    (["fit", "PHOTO", "-o", "OUT", "--threads", "0"], "1 or more"),
    (["fit", "PHOTO", "-o", "OUT", "--resume", "--overwrite"], "exclude each other"),
    (["render", "NET", "-o", "OUT.png", "--size", "0x5"], "WIDTHxHEIGHT"),
    (["render", "NET", "-o", "OUT.png", "--size", "12"], "WIDTHxHEIGHT"),
    (["render", "NET", "-o", "OUT.png", "--size", "5x-5"], "WIDTHxHEIGHT"),
    (["render", "NET", "-o", "OUT.png", "--scale", "0"], "--scale must be a positive number"),
    (["render", "NET", "-o", "OUT.png", "--scale", "inf"], "--scale must be a positive number"),
    (["render", "NET", "-o", "OUT.png", "--scale", "2", "--size", "3x3"], "not allowed with"),
    (["render", "NET", "-o", "OUT.png", "--quantity", "hessian"], "invalid choice"),
    (["render", "NET", "-o", "OUT.png", "--tile", "0"], "1 or more"),
    (["render", "NET", "-o", "OUT.txt"], "cannot tell the format"),
    (["render", "NET", "-o", "OUT"], "no extension"),
    (["render", "NET", "-o", "OUT.png", "--format", "exr"], "cannot tell the format"),
    (["render", "NET", "-o", "OUT.jpg", "--bits", "16"], "png or tiff"),
    (["render", "NET", "-o", "OUT.jpg", "--size", "70000x2"], "at most 65500"),
    (["render", "NET", "-o", "-"], "--format"),
    (["render", "NET", "-o", "NET", "--format", "png", "--overwrite"], "the checkpoint itself"),
]
INPUT = [
    (["fit", "DIR/none.png", "-o", "OUT"], "no such file"),
    (["fit", "DIR", "-o", "OUT"], "directory"),
    (["fit", "TEXT", "-o", "OUT"], "not a picture"),
    (["fit", "EMPTY", "-o", "OUT"], "empty"),
    (["fit", "PHOTO", "-o", "NET", "--resume"], "another picture"),
    (["fit", "PHOTO", "-o", "TEXT", "--resume"], "not a checkpoint"),
    (["render", "DIR/none", "-o", "OUT.png"], "no such file"),
    (["render", "DIR", "-o", "OUT.png"], "directory"),
    (["render", "TEXT", "-o", "OUT.png"], "not a checkpoint"),
    (["render", "EMPTY", "-o", "OUT.png"], "not a checkpoint"),
    (["render", "CUT", "-o", "OUT.png"], "truncated or damaged"),
    (["render", "FLIPPED", "-o", "OUT.png"], "checksum"),
    (["render", "OTHER", "-o", "OUT.png"], "not an image"),
    (["render", "ODD", "-o", "OUT.png"], "does not fit"),
    (["fit", "PHOTO", "-o", "ODD", "--resume"], "does not fit"),
    (["info", "ODD"], "does not fit"),
    (["info", "FLIPPED"], "checksum"),
    (["info", "DIR/none"], "no such file"),
    (["demo", "-o", "DIR/demo", "--image", "TEXT", "--quick"], "not a picture"),
]
OUTPUT = [
    (["fit", "PHOTO", "-o", "DIR"], "it is a directory"),
    (["fit", "PHOTO", "-o", "NET"], "exists already"),
    (["fit", "PHOTO", "-o", "DIR/none/OUT"], "does not exist"),
    (["fit", "PHOTO", "-o", "TEXT/OUT"], "does not exist"),
    (["fit", "PHOTO", "-o", "/dev/full"], "not a regular file"),
    (["fit", "PHOTO", "-o", "OUT", "--log", "DIR"], "is a directory"),
    (["render", "NET", "-o", "DIR", "--format", "png"], "it is a directory"),
    (["render", "NET", "-o", "PHOTO"], "exists already"),
    (["render", "NET", "-o", "DIR/none/OUT.png"], "does not exist"),
    (["demo", "-o", "TEXT/demo"], "cannot make directory"),
]
NON_FINITE = [(["render", "NAN", "-o", "OUT.png"], "NaN or infinity at 126 of")]
NO_SPACE = [
    (["render", "NET", "-o", f"OUT.{kind}", "--size", "900000000x900000000"], "no space") for kind in ("npy", "tiff")
]
TABLE = [
    (words, code, said)
    for code, rows in ((2, USAGE), (3, INPUT), (1, OUTPUT), (4, NON_FINITE), (5, NO_SPACE))
    for words, said in rows
]


@pytest.fixture
def places(tmp_path, photo, fitted):
    """Files of every kind, good and bad, by the words that stand for them in the table."""
    data = fitted.read_bytes()
    (tmp_path / "net").write_bytes(data)
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    (tmp_path / "flipped").write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    (tmp_path / "text.png").write_text("hello\n" * 100)
    (tmp_path / "empty.png").write_bytes(b"")
    description, tensors = tensorfile.read(fitted)
    tensorfile.write(tmp_path / "other", TensorFile({**description, "problem": "sound"}, tensors))
    odd = {**description, "settings": {**description["settings"], "lr": "fast"}}
    tensorfile.write(tmp_path / "odd", TensorFile(odd, tensors))
    poisoned = {name: np.full_like(value, np.nan) if value.ndim == 1 else value for name, value in tensors.items()}
    tensorfile.write(tmp_path / "nan", TensorFile(description, poisoned))
    names = {"TEXT": "text.png", "EMPTY": "empty.png", "PHOTO": "photo.png", "DIR": "."}
    return {
        word: tmp_path / names.get(word, word.lower())
        for word in (*names, "NET", "CUT", "FLIPPED", "OTHER", "ODD", "NAN", "OUT")
    }


@pytest.mark.parametrize(("words", "code", "said"), TABLE, ids=[" ".join(row[0]) or "nothing" for row in TABLE])
def test_faults(words, code, said, places, tmp_path, capsys):
    """Each fault has its exit code and one line, and leaves every file as it was."""
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    given = [str(places.get(head, "")) + rest for head, rest in map(split, words)]
    assert call(*given) == code
    shown = capsys.readouterr()
    assert said in one_line(shown.err.splitlines(keepends=True)[-1])
    assert shown.out == ""
    after = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert after == before


def split(word):
    """A word of the table as the name of a place and what follows it."""
    for name in ("TEXT", "EMPTY", "PHOTO", "DIR", "NET", "CUT", "FLIPPED", "OTHER", "ODD", "NAN", "OUT"):
        if word.startswith(name):
            return name, word.removeprefix(name)
    return "", word


def test_non_finite_points_are_written_when_allowed(places, tmp_path):
    assert call("render", places["NAN"], "-o", tmp_path / "a.png", "--allow-nonfinite", "--quiet") == 0
    assert (iio.imread(tmp_path / "a.png") == 0).all()


def wait_for(condition, process):
    """Wait until something shows; a process that ends before says why."""
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_ctrl_c_and_sigterm_save_and_resume_ends_with_the_same_bits(tmp_path, photo):
    """Two breaks of two kinds, in processes of their own, against one run that was left alone."""
    whole, part, log = tmp_path / "whole", tmp_path / "part", tmp_path / "log"
    options = ["--steps", "800", "--threads", "1", "--save-every", "1000", *SMALL]
    undisturbed = start("fit", photo, "-o", whole, "--quiet", *options)
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        lines = len(log.read_text().splitlines()) if log.exists() else 0
        process = start("fit", photo, "-o", part, "--resume", "--log", log, *options)
        wait_for(lambda: log.exists() and len(log.read_text().splitlines()) > lines, process)  # noqa: B023
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert "go on with --resume" in out
        assert "Traceback" not in err
    assert 0 < checkpoint.load(part).description["step"] < 800
    assert call("fit", photo, "-o", part, "--resume", "--log", log, "--quiet") == 0
    assert undisturbed.communicate(timeout=120) == ("", "")
    assert undisturbed.returncode == 0
    assert part.read_bytes() == whole.read_bytes()
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(1, 801))
    assert sorted(os.listdir(tmp_path)) == ["log", "part", "photo.png", "whole"]


def test_a_kill_leaves_a_complete_checkpoint_and_the_next_run_sweeps(tmp_path, photo):
    out = tmp_path / "a"
    process = start("fit", photo, "-o", out, "--steps", "100000", "--threads", "1", "--save-every", "0", *SMALL)
    wait_for(out.exists, process)
    time.sleep(0.3)
    process.kill()
    process.communicate()
    step = checkpoint.load(out).description["step"]
    assert step >= 1
    assert call("fit", photo, "-o", out, "--resume", "--steps", step + 1, "--quiet") == 0
    assert checkpoint.load(out).description["step"] == step + 1
    assert sorted(os.listdir(tmp_path)) == ["a", "photo.png"]


def test_render_to_standard_output_and_a_closed_pipe(fitted):
    words = ("render", fitted, "-o", "-", "--format", "tiff", "--size", "1500x1000", "--threads", "1", "--quiet")
    process = start(*words, text=False)
    assert process.stdout.read(4) == b"II*\0"
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 141


def test_ctrl_c_stops_a_render_without_a_trace(tmp_path, fitted):
    process = start(
        "render", fitted, "-o", tmp_path / "a.tiff", "--size", "30000x30000", "--bits", "8", "--threads", "1"
    )
    wait_for((tmp_path / ".a.tiff.part").exists, process)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    one_line(err.splitlines(keepends=True)[-1])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.npy"])
def test_a_disk_that_fills_up_gives_5_and_leaves_nothing(name, tmp_path, fitted, capsys):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        code = call("render", fitted, "-o", tmp_path / name, "--size", "300x300", "--quiet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 5
    assert f"cannot write {tmp_path / name}: larger than" in one_line(capsys.readouterr().err)
    assert os.listdir(tmp_path) == []


def test_out_of_memory_is_one_line(photo, tmp_path, monkeypatch, capsys):
    for error in (MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")):

        def fail(*arguments, error=error, **options):
            raise error

        monkeypatch.setattr(image, "fit", fail)
        assert call("fit", photo, "-o", tmp_path / "a") == 1
        assert "out of memory; use a smaller --hidden or --batch to fit" in one_line(capsys.readouterr().err)


def test_the_photograph_is_missing(tmp_path, monkeypatch, capsys):
    from fastsiren.problems import data, demo

    monkeypatch.setattr(demo, "photograph", lambda: data.photograph("none.png"))
    assert call("demo", "-o", tmp_path / "demo", "--quick") == 3
    assert "pip install 'fastsiren[data]'" in one_line(capsys.readouterr().err)


def test_demo(tmp_path, monkeypatch, capsys):
    from fastsiren.problems import demo

    rng = np.random.default_rng(0)
    iio.imwrite(tmp_path / "photo.png", rng.integers(0, 255, (40, 30, 3)).astype(np.uint8))
    monkeypatch.setattr(demo, "_QUICK", {"steps": 5, "hidden": 16, "layers": 1})
    monkeypatch.setattr(demo, "_QUICK_TIMING", {"points": 64, "repeats": 1, "hidden": 16, "layers": 1})
    assert call("demo", "-o", tmp_path / "demo", "--image", tmp_path / "photo.png", "--quick", "--quiet") == 0
    shown = capsys.readouterr().out
    for words in ("PSNR", "forward", "value, gradient, Laplacian", "loss and its gradients", "contact_sheet.png"):
        assert words in shown
    sizes = {path.name: iio.imread(path).shape[:2] for path in (tmp_path / "demo").glob("*.png")}
    assert sizes.pop("contact_sheet.png")[1] > 1000
    assert sizes == {"fit.png": (40, 30), "fit_4x.png": (160, 120), "gradient.png": (40, 30), "laplacian.png": (40, 30)}


def test_plain_and_fused_agree():
    from fastsiren.problems import speed

    net = fastsiren.Siren(2, 16, 1, 1)
    x = torch.rand(50, 2)
    for plain, fused in zip(speed.plain_laplacian(net, x), fastsiren.laplacian(net, x), strict=True):
        fused = fused.detach()
        difference = (plain.detach().reshape(fused.shape) - fused).abs().max()
        assert float(difference) <= 1e-4 * max(1.0, float(fused.abs().max()))
