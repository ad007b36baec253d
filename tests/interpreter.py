"""The interpreter of Triton, made to compute as a GPU does where it does not."""

from typing import Any

import numpy


def repair() -> None:
    """Fuse multiply-adds and fix the order of sums, for the rest of the process."""
    from triton.runtime.interpreter import InterpreterBuilder

    InterpreterBuilder.create_fma = _multiply_add
    InterpreterBuilder.create_dot = _dot


def _multiply_add(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """Round once, as the reduction of the sine needs it: products of two fp32 numbers are exact in fp64."""
    total = x.data.astype(numpy.float64) * y.data + z.data
    return type(z)(total.astype(z.data.dtype), z.dtype.scalar)


def _dot(builder: Any, a: Any, b: Any, d: Any, *options: Any) -> Any:
    """Row by row: bits of NumPy's products of matrices depend on the place of a row and the alignment of memory."""
    products = numpy.matmul(a.data[:, None], b.data, dtype=d.data.dtype)[:, 0]
    return type(d)(products + d.data, d.dtype.scalar)
