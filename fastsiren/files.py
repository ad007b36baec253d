"""Input files that are what they should be, and output files that appear complete or not at all.

An output is written beside its final place under a temporary name, flushed to disk and renamed; it has the permissions
of the file that it replaces. A lock file keeps a second writer out. Both helpers vanish when the work ends; after a
kill they stay, and the next writer takes them over.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from .faults import InputError, OutputError, UsageError, from_os_error

__all__ = ["atomic_output", "check_apart", "check_output", "open_input", "output_lock"]


def _beside(path: Path, suffix: str) -> Path:
    """A hidden name in the same directory, hence on the same file system."""
    return path.with_name(f".{path.name}.{suffix}")


def open_input(path: str | os.PathLike[str], kind: str) -> IO[bytes]:
    """Open an ordinary file for reading; anything else might be waited for or read without end.

    Args:
        path: The file.
        kind: What it should be, for messages, such as "a checkpoint".

    Raises:
        InputError: There is no such file, it is of another kind, or it may not be read.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            return open(path, "rb")
        found = "a directory" if stat.S_ISDIR(mode) else "no ordinary file"
        reason = f"it is {found}; give {kind}"
    except FileNotFoundError:
        reason = "no such file; check the name"
    except (OSError, ValueError) as error:
        reason = f"{getattr(error, 'strerror', None) or error}; give {kind}"
    raise InputError(f"cannot read {path}: {reason}")


def check_apart(path: str | os.PathLike[str], source: str | os.PathLike[str], *, kind: str, option: str = "-o") -> None:
    """Refuse an output that would be written over what is read, under whatever name.

    Args:
        path: Where the output is to appear.
        source: The file that is read, or another output.
        kind: What `source` is, for the message, such as "the picture".
        option: The option that names `path`.

    Raises:
        UsageError: Both are one file.
    """
    same = os.path.realpath(path) == os.path.realpath(source)
    if same or (os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source)):
        raise UsageError(f"{path} is {kind} itself; choose another file with {option}")


def check_output(path: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Refuse an output path that cannot become a file, before any work is done.

    Args:
        path: Where the file is to appear.
        overwrite: Whether an existing file may be replaced.

    Raises:
        OutputError: The path is a directory or a device, exists already, or its directory is missing or read-only.
    """
    path = Path(path)
    mode = _mode(path)
    if mode is not None and stat.S_ISDIR(mode):
        raise OutputError(f"cannot write {path}: it is a directory; give a file name with -o")
    if mode is not None and not stat.S_ISREG(mode):
        raise OutputError(f"cannot write {path}: it is not a regular file; choose another place with -o")
    if mode is not None and not overwrite:
        raise OutputError(f"{path} exists already; use --overwrite to replace it, or another name with -o")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: directory {path.parent} does not exist; create it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {path}: directory {path.parent} is not writable; choose another place with -o")
    return path


def _mode(path: Path) -> int | None:
    """Kind and permissions of what is at a path; None when nothing is."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise from_os_error(error, str(path), "write") from None
    except ValueError as error:
        raise OutputError(f"cannot write {str(path)!r}: {error}; choose another name with -o") from None


def _try_lock(descriptor: int) -> bool:
    """Take an exclusive lock without waiting; a system without file locks counts as locked."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # NFS and some network file systems refuse flock; the atomic rename still holds there.
        return True
    return True


def _same_file(descriptor: int, path: Path) -> bool:
    """Whether the name still leads to the open file: the previous holder may have removed it in between."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return False
    mine = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)


@contextmanager
def output_lock(path: str | os.PathLike[str]) -> Iterator[None]:
    """Keep every other process from writing `path` until the block ends.

    Args:
        path: The output file; the lock is a hidden file beside it.

    Raises:
        OutputError: Another process holds the lock.
    """
    path = Path(os.path.realpath(path))
    lock = _beside(path, "lock")
    descriptor = _open_lock(path, lock)
    try:
        # A writer that was killed leaves its temporary file behind.
        with suppress(OSError):
            _beside(path, "part").unlink()
        yield
    finally:
        with suppress(OSError):
            lock.unlink()
        os.close(descriptor)


def _open_lock(path: Path, lock: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    while True:
        try:
            descriptor = os.open(lock, flags, 0o644)
        except OSError as error:
            raise from_os_error(error, str(path), "write") from None
        if not _try_lock(descriptor):
            os.close(descriptor)
            raise OutputError(
                f"{path} is being written by another process (it holds {lock}); wait, or use another name"
            )
        if _same_file(descriptor, lock):
            return descriptor
        os.close(descriptor)


def _sync_directory(directory: Path) -> None:
    # Windows cannot open a directory; there the rename itself is what the system offers.
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Output(io.FileIO):
    """The temporary file of an output; where it cannot be written, the error names the output."""

    def __init__(self, descriptor: int, path: Path) -> None:
        super().__init__(descriptor, "wb")
        self.name = str(path)

    def write(self, data: Any) -> int:
        with _reported(self.name):
            return super().write(data)


@contextmanager
def _reported(path: str) -> Iterator[None]:
    """Say which file it is that the system could not write."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise from_os_error(error, path, "write") from None


def _open_part(part: Path, mode: int | None) -> int:
    """Open the temporary file of an output that replaces a file of some mode, None for none."""
    part.unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    # What nobody else could read is not to be readable on its way either.
    descriptor = os.open(part, flags | getattr(os, "O_BINARY", 0), 0o666 if mode is None else 0o600)
    if mode is not None and os.fstat(descriptor).st_mode & 0o777 != mode & 0o777:
        os.fchmod(descriptor, mode & 0o777)
    return descriptor


@contextmanager
def atomic_output(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of `path` when the block ends well, and leaves no trace when it does not.

    It gets the permissions of a file that it replaces; errors that the block raises pass through as they are.

    Args:
        path: Where the file is to appear. Call it under `output_lock` when other processes may write it too.

    Raises:
        NoSpaceError: The file system is full.
        OutputError: The file cannot be created, written or renamed.

    Example:
        >>> import tempfile, os
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with atomic_output(os.path.join(directory, "a.bin")) as file:
        ...         _ = file.write(b"done")
        ...     os.listdir(directory)
        ['a.bin']
    """
    # A link is written through: its target is replaced, the link stays.
    path = Path(os.path.realpath(path))
    part = _beside(path, "part")
    with _reported(str(path)):
        descriptor = _open_part(part, _mode(path))
    try:
        with io.BufferedWriter(_Output(descriptor, path)) as file:
            yield file
            file.flush()
            with _reported(str(path)):
                os.fsync(file.fileno())
        with _reported(str(path)):
            os.replace(part, path)
            _sync_directory(path.parent)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
