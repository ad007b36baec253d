"""The command line against its surroundings: arguments that would do harm, closed or full streams, early signals."""

import os
import signal
import subprocess
import sys

import imageio.v3 as imageio
import numpy
import pytest

from fastsiren import cli
from fastsiren.problems import image


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    imageio.imwrite(path, numpy.arange(192, dtype=numpy.uint8).reshape(8, 8, 3))
    return path


def refused(arguments, capsys):
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as exit:
        code = exit.code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("fastsiren: error: ")
    return code, lines[0]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--threads", "100000", "must be at most 1024"),
        ("--seed", str(10**23), "from 0 to 2**63 - 1"),
        ("--psnr", "nan", "must be a number"),
        ("--save-every", "inf", "must be a number"),
    ],
)
def test_numbers_out_of_range(picture, tmp_path, capsys, option, value, said):
    code, line = refused(["fit", picture, "-o", tmp_path / "a.safetensors", option, value], capsys)
    assert code == 2 and said in line
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize("link", ["", "symbolic", "hard"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fit", "READ", "-o", "LINK", "--overwrite"], "is the picture itself; choose another file with -o"),
        (["fit", "READ", "-o", "OUT", "--log", "LINK"], "is the picture itself; choose another file with --log"),
        (["render", "READ", "-o", "LINK", "--format", "png", "--overwrite"], "is the checkpoint itself"),
        (["demo", "-o", "DIR", "--image", "READ", "--quick"], "is the picture itself"),
    ],
    ids=lambda part: part[0] if isinstance(part, list) else "",
)
def test_nothing_is_written_over_what_is_read(picture, tmp_path, capsys, words, said, link):
    read = tmp_path / "read"
    if words[0] == "render":
        image.fit(str(picture), out=read, steps=1, hidden=4, layers=0, progress=False)
    else:
        read.write_bytes(picture.read_bytes())
    written = read if not link else tmp_path / "fit.png"
    if link:
        (os.symlink if link == "symbolic" else os.link)(read, written)
    elif words[0] == "demo":
        read = read.rename(tmp_path / "fit.png")
    before = read.read_bytes()
    places = {"READ": read, "LINK": written, "OUT": tmp_path / "out", "DIR": tmp_path}
    code, line = refused([places.get(word, word) for word in words], capsys)
    assert code == 2 and said in line
    assert read.read_bytes() == before


def test_log_and_checkpoint_are_two_files(picture, tmp_path, capsys):
    code, line = refused(["fit", picture, "-o", tmp_path / "a", "--log", tmp_path / "." / "a"], capsys)
    assert code == 2 and "is the checkpoint itself; choose another file with --log" in line
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("content", [b"PK something", b'{"name": "json of another kind"}'])
def test_a_log_is_not_appended_to_another_file(content, picture, tmp_path, capsys):
    other = tmp_path / "other.bin"
    other.write_bytes(content)
    code, line = refused(["fit", picture, "-o", tmp_path / "a.safetensors", "--log", other], capsys)
    assert code == 2 and "is no log" in line
    assert other.read_bytes() == content


def test_a_fit_needs_ordinary_files(picture, tmp_path, capsys):
    assert refused(["fit", picture, "-o", "-"], capsys)[0] == 2
    os.mkfifo(tmp_path / "pipe")
    for words in (["fit", "/dev/zero"], ["fit", tmp_path / "pipe"], ["render", tmp_path / "pipe"]):
        code, line = refused([*words, "-o", tmp_path / "a.png"], capsys)
        assert code == 3 and "no ordinary file" in line


def test_a_full_log_stops_the_fit_and_what_was_trained_stays(picture, tmp_path, capsys):
    out = tmp_path / "a.safetensors"
    code, line = refused(["fit", picture, "-o", out, "--log", "/dev/full", "--hidden", "8", "--quiet"], capsys)
    assert code == 5
    assert "cannot write /dev/full: no space left" in line and line.endswith("with --log")
    assert image.load(out).description["step"] == 1


def test_a_log_that_cannot_be_opened_names_its_option(picture, tmp_path, capsys):
    code, line = refused(["fit", picture, "-o", tmp_path / "a", "--log", tmp_path / "none" / "log"], capsys)
    assert code == 1 and "none/log: no such file" in line and line.endswith("with --log")


def test_full_standard_output():
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fastsiren", "info"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 5
    assert done.stderr.splitlines() == [
        "fastsiren: error: cannot write standard output: no space left; free some space or choose another place with -o"
    ]


@pytest.mark.parametrize(
    ("words", "closed", "code", "said"),
    [
        (["info"], ">&-", 1, "fastsiren: error: cannot write standard output: bad file descriptor; "),
        (["info"], ">&- 2>&-", 1, ""),
        (["--help"], ">&-", 1, "fastsiren: error: cannot write standard output: "),
        (["fit", "PICTURE", "-o", "OUT", "--steps", "1", "--hidden", "4", "--quiet"], "<&- >&- 2>&-", 0, ""),
    ],
)
def test_closed_standard_streams(picture, tmp_path, words, closed, code, said):
    """The next file that is opened does not take the place of a closed stream."""
    words = [{"PICTURE": str(picture), "OUT": str(tmp_path / "out")}.get(word, word) for word in words]
    line = f'"$@" {closed}'
    done = subprocess.run(
        ["sh", "-c", line, "sh", sys.executable, "-m", "fastsiren", *words], capture_output=True, text=True
    )
    assert done.returncode == code
    assert done.stdout == "" and done.stderr.startswith(said) and done.stderr.count("\n") == bool(said)
    assert "OUT" not in words or image.load(tmp_path / "out").description["step"] == 1


@pytest.mark.parametrize(("name", "said"), [("SIGINT", "fastsiren: error: interrupted\n"), ("SIGTERM", "")])
def test_a_signal_while_torch_loads_ends_the_program(name, said):
    """Extension modules swallow exceptions of handlers, as the finder here does."""
    code = f"""
import os, signal, sys
from fastsiren import cli
class Finder:
    def find_spec(name, *_):
        if name == "torch":
            try:
                os.kill(os.getpid(), signal.{name})
            except BaseException:
                pass
sys.meta_path.insert(0, Finder)
sys.exit(cli.main(["info"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (128 + getattr(signal, name), "", said)
