"""What can go wrong for a user, each with the exit code the command line gives it.

| code | meaning | exception |
|---|---|---|
| 1 | failed: the output cannot be written or is being written, out of memory | `OutputError` |
| 2 | usage: an option or a combination of options makes no sense | `UsageError` |
| 3 | the input is damaged, missing or refused | `InputError` |
| 4 | non-finite values where numbers were due | `NonFiniteError` |
| 5 | no space left for the output | `NoSpaceError` |
"""

from __future__ import annotations

import errno

__all__ = [
    "Fault",
    "InputError",
    "NoSpaceError",
    "NonFiniteError",
    "OutputError",
    "UsageError",
    "from_os_error",
    "is_no_space",
]

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Fault(Exception):
    """An error whose message is written for the user: what happened and how to mend it, on one line."""

    exit_code = 1


class OutputError(Fault, OSError):
    """The output cannot be written, exists already, or belongs to another process."""


class UsageError(Fault, ValueError):
    """An option, or a combination of options, makes no sense."""

    exit_code = 2


class InputError(Fault, ValueError):
    """A file given as input is missing, damaged or of a kind that is refused."""

    exit_code = 3


class NonFiniteError(Fault, ArithmeticError):
    """NaN or infinity appeared where a number was due."""

    exit_code = 4


class NoSpaceError(OutputError):
    """The output does not fit on its file system."""

    exit_code = 5


def from_os_error(error: OSError, path: str, doing: str, *, option: str = "-o") -> OutputError:
    """Translate an `OSError` met while writing `path` into the fault the user sees.

    Args:
        error: What the operating system said.
        path: The file being written.
        doing: A verb for the message, such as "write".
        option: The option that names `path`.
    """
    if is_no_space(error):
        why = "larger than the file size limit" if error.errno == errno.EFBIG else "no space left"
        return NoSpaceError(f"cannot {doing} {path}: {why}; free some space or choose another place with {option}")
    reason = (error.strerror or str(error)).lower()
    return OutputError(f"cannot {doing} {path}: {reason}; choose another place with {option}")


def is_no_space(error: OSError) -> bool:
    """Whether the operating system said that a file does not fit."""
    return error.errno in _NO_SPACE
