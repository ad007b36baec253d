"""Tiles of rows and channels: which rows a program has, and products of all channels with one matrix.

A buffer of channels is [C, rows, width], contiguous: row r of channel c begins at (c * rows + r) * width. Its width
is padded to a multiple of every tile, and the padding holds zeros, so that no load or store is masked along it. Its
numbers have 16 bits where that is all that the tensor cores take. The rows of G networks follow one another, N each;
no tile has rows of two.
"""

import triton
import triton.language as tl

from .digits import digit_dot, digit_scales, joined, magnitude, rounded
from .dot import dot, guarded, powers_of_two, sine_powers


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
def _slice(a, high, low, total, OF_SINES: tl.constexpr, MODE: tl.constexpr):
    """total + a @ (high + low) for one slice of the inner dimension; of sines, times their power of two."""
    if a.dtype.primitive_bitwidth == 16:
        return total + dot(a, high, low, MODE)
    elif OF_SINES:
        up, _down = sine_powers(MODE)
        return total + dot(a * up, high, low, MODE)
    elif guarded(MODE):
        up, down = powers_of_two(tl.max(tl.abs(a), axis=1))
        return total + dot(a * up[:, None], high, low, MODE) * down[:, None]
    else:
        return total + dot(a, high, low, MODE)


@triton.jit
def _matrix_at(P, k, n, INNER: tl.constexpr, WIDTH: tl.constexpr, UP: tl.constexpr):
    """Addresses of a block [inner k, outer n] of a packed matrix, or of its transpose."""
    if UP:
        return P + k[:, None] * WIDTH + n[None, :]
    else:
        return P + n[None, :] * INNER + k[:, None]


@triton.jit
def _digit_row(X, row, live, scales, k, INNER: tl.constexpr, UP: tl.constexpr):
    """[BM, BK] of one channel, times the scales of the units where these are summed over."""
    a = load_tile(X, row, live, k, INNER)
    if UP:
        a = a * tl.load(scales + k)[None, :]
    return a


@triton.jit
def _digit_product(
    X, row, live, P, scales, n, INNER: tl.constexpr, WIDTH: tl.constexpr, UP: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """One channel of wide_product by digits. Their sums are exact because a row has one scale, so it is read twice."""
    largest = tl.zeros((BM,), tl.int32)
    for start in range(0, INNER, BK):
        a = _digit_row(X, row, live, scales, start + tl.arange(0, BK), INNER, UP)
        largest = tl.maximum(largest, tl.max(magnitude(a), axis=1))
    up, down = digit_scales(largest)
    sums = (tl.zeros((BM, BN), tl.int32), tl.zeros((BM, BN), tl.int32), tl.zeros((BM, BN), tl.int32))
    for start in tl.range(0, INNER, BK, num_stages=STAGES):
        k = start + tl.arange(0, BK)
        at = _matrix_at(P, k, n, INNER, WIDTH, UP)
        w2, w1, w0 = tl.load(at), tl.load(at + INNER * WIDTH), tl.load(at + 2 * INNER * WIDTH)
        a = _digit_row(X, row, live, scales, k, INNER, UP)
        sums = digit_dot(rounded(a, up[:, None]), w2, w1, w0, sums)
    return joined(sums) * down[:, None]


@triton.jit
def _channels_product(
    X, rows, row, live, P, scales, n, C: tl.constexpr, INNER: tl.constexpr, WIDTH: tl.constexpr, UP: tl.constexpr,
    VALUES: tl.constexpr, MODE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """All channels of wide_product, slice by slice: each slice of the matrix is read once."""
    totals = ()
    for _ in tl.static_range(C):
        totals = totals + (tl.zeros((BM, BN), scales.dtype.element_ty),)
    for start in tl.range(0, INNER, BK, num_stages=STAGES):
        k = start + tl.arange(0, BK)
        at = _matrix_at(P, k, n, INNER, WIDTH, UP)
        if UP:
            weight = tl.load(scales + k)[None, :]
        high = tl.load(at)
        low = high
        if MODE == "fp32":
            low = tl.load(at + INNER * WIDTH)
        added = ()
        for c in tl.static_range(C):
            a = load_tile(X + c * rows * INNER, row, live, k, INNER)
            if UP:
                a = a * weight
            added = added + (_slice(a, high, low, totals[c], VALUES and c == 0, MODE),)
        totals = added
    return totals


@triton.jit
def wide_product(
    X, rows, row, live, P, scales, n, C: tl.constexpr, INNER: tl.constexpr, WIDTH: tl.constexpr, UP: tl.constexpr,
    VALUES: tl.constexpr, MODE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """Products of C channels [C, rows, INNER] with a packed matrix: a tuple of C tiles [BM, BN].

    P is [PARTS, units, inputs], the parts of A scaled per unit; scales [units] undo that.
    UP: A^T, from units to inputs; else A, from inputs to units. n [BN] are the columns of the result, out of WIDTH.
    VALUES: channel 0 are sines, from inputs to units.
    """
    totals = ()
    if MODE == "int8":
        # A channel at a time: three sums take the registers of three channels.
        for c in tl.static_range(C):
            channel = X + c * rows * INNER
            totals = totals + (_digit_product(channel, row, live, P, scales, n, INNER, WIDTH, UP, BM, BN, BK, STAGES),)
    else:
        totals = _channels_product(
            X, rows, row, live, P, scales, n, C, INNER, WIDTH, UP, VALUES, MODE, BM, BN, BK, STAGES
        )
    if UP:
        return totals
    weight = tl.load(scales + n)[None, :]
    scaled = ()
    for c in tl.static_range(C):
        if VALUES and c == 0:
            _up, down = sine_powers(MODE)
            scaled = scaled + (totals[c] * (weight * down),)
        else:
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
