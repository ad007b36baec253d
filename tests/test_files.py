"""Output files: complete or not there, with the permissions that they should have, and one writer at a time."""

import os
import stat

import pytest

from fastsiren.faults import NoSpaceError, OutputError
from fastsiren.files import atomic_output, check_output, output_lock


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path, data = tmp_path / "out", b"old"
    path.write_bytes(data)
    with pytest.raises(RuntimeError, match="midway"), atomic_output(path) as file:
        file.write(b"half")
        raise RuntimeError("midway")
    assert path.read_bytes() == data
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("error", [OSError("of the caller"), FileNotFoundError(2, "no such input", "elsewhere")])
def test_an_error_of_the_block_stays_as_it_is(tmp_path, error):
    with pytest.raises(OSError) as caught, atomic_output(tmp_path / "out"):
        raise error
    assert caught.value is error
    assert os.listdir(tmp_path) == []


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("permissions", [0o600, 0o640, 0o664, 0o444])
def test_a_replaced_file_keeps_its_permissions(tmp_path, permissions):
    path, part = tmp_path / "out", tmp_path / ".out.part"
    path.write_bytes(b"old")
    path.chmod(permissions)
    part.write_bytes(b"left by a kill")
    with atomic_output(path) as file:
        file.write(b"new")
        assert mode(part) == permissions
    assert (mode(path), path.read_bytes()) == (permissions, b"new")


def test_a_new_file_follows_the_umask(tmp_path):
    (tmp_path / ".out.part").touch(0o600)
    before = os.umask(0o027)
    try:
        with atomic_output(tmp_path / "out") as file:
            file.write(b"new")
    finally:
        os.umask(before)
    assert mode(tmp_path / "out") == 0o640


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    with atomic_output(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_output_paths_that_cannot_work_are_refused_at_once(tmp_path):
    (tmp_path / "old").write_bytes(b"old")
    cases = [
        (tmp_path, "directory"),
        (tmp_path / "old", "--overwrite"),
        (tmp_path / "none" / "a", "does not exist"),
        (tmp_path / "old" / "a", "old"),
        (tmp_path / ("x" * 300), "too long"),
        ("a\0b", "null"),
        ("/dev/null", "not a regular file"),
    ]
    for path, words in cases:
        with pytest.raises(OutputError, match=words):
            check_output(path, overwrite=False)
    assert check_output(tmp_path / "old", overwrite=True) == tmp_path / "old"


def test_a_second_writer_is_refused_and_stale_files_are_swept(tmp_path):
    path = tmp_path / "out"
    (tmp_path / ".out.part").write_bytes(b"left by a kill")
    (tmp_path / ".out.lock").write_bytes(b"")
    with output_lock(path):
        assert not (tmp_path / ".out.part").exists()
        # A lock belongs to the open file, so a second opening stands for a second process.
        with pytest.raises(OutputError, match=r"another process.*\.out\.lock"), output_lock(path):
            pass
        assert (tmp_path / ".out.lock").exists()
    assert os.listdir(tmp_path) == []
    with output_lock(path):
        pass


def test_no_space_left_is_a_fault_of_its_own_and_keeps_the_old_file(tmp_path):
    """A file size limit stands in for a full disk; the write fails half way either way."""
    resource = pytest.importorskip("resource")
    (tmp_path / "out").write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(NoSpaceError, match="size limit") as caught, atomic_output(tmp_path / "out") as file:
            file.write(bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.exit_code == 5
    assert os.listdir(tmp_path) == ["out"]
    assert (tmp_path / "out").read_bytes() == b"old"
