"""Arguments of the command line that would do harm, and standard output that cannot be written."""

import subprocess
import sys

import imageio.v3 as imageio
import numpy
import pytest

from fastsiren import cli


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


def test_a_fit_never_replaces_what_it_reads(picture, tmp_path, capsys):
    before = picture.read_bytes()
    for arguments in (["-o", picture, "--overwrite"], ["-o", tmp_path / "a.safetensors", "--log", picture]):
        code, line = refused(["fit", picture, *arguments], capsys)
        assert code == 2 and "is the picture itself" in line
    assert picture.read_bytes() == before


def test_a_log_is_not_appended_to_another_file(picture, tmp_path, capsys):
    other = tmp_path / "other.bin"
    other.write_bytes(b"PK something")
    code, line = refused(["fit", picture, "-o", tmp_path / "a.safetensors", "--log", other], capsys)
    assert code == 2 and "is no log" in line
    assert other.read_bytes() == b"PK something"


def test_a_fit_needs_ordinary_files(picture, tmp_path, capsys):
    assert refused(["fit", picture, "-o", "-"], capsys)[0] == 2
    code, line = refused(["fit", "/dev/zero", "-o", tmp_path / "a.safetensors"], capsys)
    assert code == 3 and "no ordinary file" in line


def test_full_standard_output():
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fastsiren", "info"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 5
    assert done.stderr.splitlines() == [
        "fastsiren: error: cannot write standard output: no space left; free some space or choose another place with -o"
    ]
