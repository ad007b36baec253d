"""The Helmholtz equation on a grid, solved directly: what networks are measured against and learn from.

In a uniform medium the operator is one along x plus one along y, hence diagonal in the eigenvectors of a matrix of the
grid's side; another medium takes a few such solutions.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable

import numpy as np

from ..faults import InputError, UsageError
from ..tensorfile import Array

__all__ = ["STRENGTH", "WIDTH", "HelmholtzGrid", "Medium", "gaussian", "need_scipy", "point_source"]

Medium = Callable[[Array, Array], Array]

# The absorbing layer of the official code: from |x| = 1 - WIDTH on, e(x) = 1 - i STRENGTH (depth / WIDTH)².
WIDTH = 0.5
STRENGTH = 5.0
# Samples along each axis of a cell, to average a medium that jumps inside.
_INSIDE = 4


def need_scipy(what: str) -> None:
    """Refuse what cannot be done without scipy.

    Args:
        what: For the message, such as "the reference".

    Raises:
        UsageError: It is not installed.
    """
    if importlib.util.find_spec("scipy") is None:
        raise UsageError(f"{what} needs the package scipy; run: pip install 'fastsiren[data]'")


class HelmholtzGrid:
    """The field on n x n points inside [-1, 1]²; it is zero on the border.

    ∂x(A ∂x u) + ∂y(B ∂y u) + C m k² u = C f with A = e(y) / e(x), B = e(x) / e(y), C = e(x) e(y), by differences of
    fourth order. Rows are x, columns y.

    Args:
        k: Wavenumber where m is 1.
        medium: Squared slowness m(x, y) of arrays that broadcast.
        count: n.
    """

    def __init__(self, k: float, medium: Medium, count: int) -> None:
        need_scipy("a direct solution")
        self.k, self.count, self.step = k, count, 2 / (count + 1)
        self.axis = -1 + self.step * np.arange(1, count + 1)
        between = -1 + self.step * (np.arange(count + 1) + 0.5)
        along = _difference(count) / self.step
        # Divided by C, the operator is N on rows plus N on columns plus k² m.
        operator = -along.T @ (along / _stretch(between)[:, None]) / _stretch(self.axis)[:, None]
        self._values, self._vectors = np.linalg.eig(operator)
        self._inverse = np.linalg.inv(self._vectors)
        self._excess = k**2 * (self._averaged(medium) - 1)

    def _averaged(self, medium: Medium) -> Array:
        """The medium's mean over the cell of each point."""
        offsets = self.step * ((np.arange(_INSIDE) + 0.5) / _INSIDE - 0.5)
        fine = (self.axis[:, None] + offsets).ravel()
        values = np.broadcast_to(medium(fine[:, None], fine[None, :]), (fine.size, fine.size))
        return values.reshape(self.count, _INSIDE, self.count, _INSIDE).mean((1, 3))

    def solve(self, source: Array) -> Array:  # [n, n] -> [n, n]
        """The complex field of a source.

        Raises:
            InputError: The medium differs too much from 1.
        """
        from scipy.sparse.linalg import LinearOperator, gmres

        first = self._uniform(source)
        if not self._excess.any():
            return first
        shape = (self.count, self.count)

        def apply(field: Array) -> Array:
            return field + self._uniform(self._excess * field.reshape(shape)).ravel()

        operator = LinearOperator((first.size, first.size), matvec=apply, dtype=np.complex128)
        field, failed = gmres(operator, first.ravel(), rtol=1e-6, restart=200, maxiter=2)
        if failed:
            raise InputError("the direct solver does not converge in this medium; choose one that is closer to 1")
        return field.reshape(shape)

    def _uniform(self, source: Array) -> Array:
        """The field where m is 1."""
        inner = self._inverse @ source @ self._inverse.T
        return self._vectors @ (inner / (self._values[:, None] + self._values + self.k**2)) @ self._vectors.T

    def at(self, field: Array, points: Array) -> Array:  # [n, n], [N, 2] -> [N]
        """A field between the points of the grid, by cubic splines."""
        from scipy.interpolate import RectBivariateSpline

        real, imag = (
            RectBivariateSpline(self.axis, self.axis, part).ev(points[:, 0], points[:, 1])
            for part in (field.real, field.imag)
        )
        return real + 1j * imag


def _stretch(x: Array) -> Array:
    """The complex stretching e(x) of the absorbing layer; 1 in the physical part."""
    depth = np.clip(np.abs(x) - (1 - WIDTH), 0, None)
    return 1 - 1j * STRENGTH * (depth / WIDTH) ** 2


def _difference(count: int) -> Array:  # [n + 1, n]
    """First differences of fourth order from n points to the n + 1 places between them."""
    weights = {-2: 1 / 24, -1: -27 / 24, 0: 27 / 24, 1: -1 / 24}
    return np.sum([weight * np.eye(count + 1, count, offset) for offset, weight in weights.items()], axis=0)


def gaussian(x: Array, y: Array, centre: tuple[float, float], sigma: float) -> Array:
    """A source of integral 1 and standard deviation `sigma`."""
    squares = (x - centre[0]) ** 2 + (y - centre[1]) ** 2
    return np.exp(-squares / (2 * sigma**2)) / (2 * math.pi * sigma**2)


def point_source(k: float, sigma: float, r: Array) -> Array:
    """The outgoing wave of a Gaussian source of integral 1 in a uniform medium, at distances r.

    It is (i/4) H0(k r) exp(-k² sigma² / 2) wherever the source has vanished, and its own integral nearer.

    Args:
        k: Wavenumber.
        sigma: Standard deviation of the source.
        r: Distances.
    """
    from scipy.integrate import cumulative_simpson
    from scipy.special import hankel2, j0

    # Rings of the source, from its middle to where nothing is left of it.
    s = np.linspace(0, 9 * sigma, 4001)[1:]
    ring = np.exp(-(s**2) / (2 * sigma**2)) * s / sigma**2
    # The source is constant, its top, in the middle of the first ring.
    inner = s[0] ** 2 / (2 * sigma**2) + cumulative_simpson(ring * j0(k * s), x=s, initial=0)
    outer = cumulative_simpson(ring * hankel2(0, k * s), x=s, initial=0)
    inside = 0.25j * (hankel2(0, k * s) * inner + j0(k * s) * (outer[-1] - outer))
    near = np.interp(r, s, inside.real) + 1j * np.interp(r, s, inside.imag)
    far = 0.25j * hankel2(0, k * np.maximum(r, s[-1])) * inner[-1]
    return np.where(r < s[-1], near, far)
