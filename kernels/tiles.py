"""Tiles of rows and channels: which rows a program has, and products of all channels with one matrix.

A buffer of channels is [C, rows, width], contiguous: row r of channel c begins at (c * rows + r) * width. Its width is
padded to a multiple of every tile, and the padding holds zeros, so that no load or store is masked along it. The rows
of G networks follow one another, N each; a tile never has rows of two of them.
"""

import triton
import triton.language as tl

from .dot import dot, guarded, powers_of_two


@triton.jit
def rows_of(pid, N, BM: tl.constexpr):
    """Network, rows [BM] in its buffers and whether they exist, of the tile pid."""
    tiles = tl.cdiv(N, BM)
    local = (pid % tiles) * BM + tl.arange(0, BM)
    return pid // tiles, (pid // tiles) * N + local, local < N


@triton.jit
def load_tile(X, row, live, column, width):
    """[BM, B] of one channel, zeros where rows do not exist."""
    return tl.load(X + row[:, None] * width + column[None, :], mask=live[:, None], other=0.0)


@triton.jit
def store_tile(Y, row, live, column, width, value):
    """Write [BM, B] of one channel where rows exist."""
    tl.store(Y + row[:, None] * width + column[None, :], value.to(Y.dtype.element_ty), mask=live[:, None])


@triton.jit
def _slice(a, high, low, total, MODE: tl.constexpr):
    """total + a @ (high + low) for one slice of the inner dimension."""
    if guarded(MODE):
        up, down = powers_of_two(tl.max(tl.abs(a), axis=1))
        return total + dot(a * up[:, None], high, low, MODE) * down[:, None]
    else:
        return total + dot(a, high, low, MODE)


@triton.jit
def wide_product(
    X, rows, row, live, P, scales, n, C: tl.constexpr, INNER: tl.constexpr, WIDTH: tl.constexpr, UP: tl.constexpr,
    MODE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Products of C channels [C, rows, INNER] with a packed matrix: a tuple of C tiles [BM, BN].

    P is [2, units, inputs], high and low parts of A scaled by a power of two per unit; scales [units] are its inverse.
    UP: A^T, from units to inputs; else A, from inputs to units. n [BN] are the columns of the result, out of WIDTH.
    """
    real = X.dtype.element_ty
    totals = ()
    for _ in tl.static_range(C):
        totals = totals + (tl.zeros((BM, BN), real),)
    for start in tl.range(0, INNER, BK, num_stages=STAGES):
        k = start + tl.arange(0, BK)
        if UP:
            at = P + k[:, None] * WIDTH + n[None, :]
            weight = tl.load(scales + k)[None, :]
        else:
            at = P + n[None, :] * INNER + k[:, None]
        high = tl.load(at)
        low = high
        if MODE == "fp32":
            low = tl.load(at + INNER * WIDTH)
        added = ()
        for c in tl.static_range(C):
            a = load_tile(X + c * rows * INNER, row, live, k, INNER)
            if UP:
                a = a * weight
            added = added + (_slice(a, high, low, totals[c], MODE),)
        totals = added
    if UP:
        return totals
    weight = tl.load(scales + n)[None, :]
    scaled = ()
    for c in tl.static_range(C):
        scaled = scaled + (totals[c] * weight,)
    return scaled


@triton.jit
def thin_product(
    S, rows, row, live, W, n, unit, inner, C: tl.constexpr, GIVEN: tl.constexpr, INNER: tl.constexpr,
    H, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """The same for few inner columns, S [GIVEN, rows, INNER], by multiply-adds in full precision.

    The matrix has unit n and column j at W + n * unit + j * inner; units from H on are padding, and channels from GIVEN
    on are zero.
    """
    real = W.dtype.element_ty
    totals = ()
    for c in tl.static_range(C):
        total = tl.zeros((BM, BN), real)
        if c < GIVEN:
            for j in range(INNER):
                w = tl.load(W + n * unit + j * inner, mask=n < H, other=0.0)
                s = tl.load(S + (c * rows + row) * INNER + j, mask=live, other=0.0)
                total += s[:, None] * w[None, :]
        totals = totals + (total,)
    return totals
