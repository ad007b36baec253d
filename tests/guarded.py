"""Memory that shows mistakes: tensors that end at an inaccessible page, huge ones that take no memory, aliased ones.

Mappings are never undone: for processes that end with their test.
"""

import ctypes
import mmap
import os

import torch
from torch import Tensor

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_ACCESS = mmap.PROT_READ | mmap.PROT_WRITE
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
# Linux values that the mmap module does not export everywhere.
_NORESERVE, _FIXED = 0x4000, 0x10


def _map(size: int, flags: int, at: int | None = None, file: int = -1) -> int:
    address = _LIBC.mmap(at, size, _ACCESS, flags, file, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise MemoryError(os.strerror(ctypes.get_errno()))
    return address


def _tensor(address: int, count: int, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer((ctypes.c_uint8 * (count * dtype.itemsize)).from_address(address), dtype=dtype)


def guarded(tensor: Tensor, side: str) -> Tensor:
    """A contiguous copy whose last byte ("right") or first byte ("left") touches a page that nobody may access."""
    size = tensor.numel() * tensor.element_size()
    if not size:
        return tensor.clone(memory_format=torch.contiguous_format)
    body = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    base = _map(body + 2 * mmap.PAGESIZE, _PRIVATE)
    for page in (base, base + mmap.PAGESIZE + body):
        if _LIBC.mprotect(page, mmap.PAGESIZE, 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    address = base + mmap.PAGESIZE + (body - size if side == "right" else 0)
    return _tensor(address, tensor.numel(), tensor.dtype).view(tensor.shape).copy_(tensor)


def sparse(count: int, dtype: torch.dtype) -> Tensor:
    """Zeros that take no memory until they are written."""
    return _tensor(_map(count * dtype.itemsize, _PRIVATE | _NORESERVE), count, dtype)


def aliased(count: int, dtype: torch.dtype, window: int = 1 << 22) -> Tensor:
    """A long tensor in the memory of one window, which repeats: what was written last shows everywhere."""
    size = -(-count * dtype.itemsize // window) * window
    file = os.memfd_create("window")
    os.ftruncate(file, window)
    base = _map(size, _PRIVATE | _NORESERVE)
    for start in range(0, size, window):
        _map(window, mmap.MAP_SHARED | _FIXED, base + start, file)
    return _tensor(base, count, dtype)
