"""Modulated networks as plain ones: h = m sin(omega (s (W h + b) + t) + phi), with s, t, phi, m folded into W and b.

Folding is exact: W' = s W with the gain of the layer before on its columns, b' = s b + t + phi / omega. Any modulation
may have an axis of networks in front; what comes out of it then has that axis too, as fastsiren.functional takes it.
"""

from collections.abc import Sequence

from torch import Tensor

from .engine.values import listed

Modulation = Sequence[Tensor | None]
"""One tensor [H] or [G, H] per sine layer, None where a layer has none."""


def modulated(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    omegas: Sequence[float],
    *,
    scale: Modulation | None = None,
    shift: Modulation | None = None,
    phase: Modulation | None = None,
    gain: Modulation | None = None,
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Weights and biases of the plain network that equals a modulated one, differentiable in all that is given.

    Args:
        weights: one [n_out, n_in] or [G, n_out, n_in] per layer.
        biases: one [n_out] or [G, n_out] per layer, None where a layer has none.
        omegas: one float per sine layer: one fewer than weights, or as many when the last layer is a sine layer too.
        scale: s, a factor on W h + b.
        shift: t, added to that, inside omega.
        phase: phi, added outside omega.
        gain: m, a factor on the sine. Each of these is one tensor [H] or [G, H] per sine layer, or None.

    Returns:
        The weights and the biases, with the axis of G networks where a modulation brings it.

    Raises:
        TypeError: an argument is no list.
        ValueError: numbers of layers or widths do not fit, a phase meets an omega of 0, or a last sine layer has a
            gain, which no layer behind it can take up.

    Example:
        >>> import torch, fastsiren
        >>> from fastsiren.modulation import modulated
        >>> W, b = [torch.randn(8, 2), torch.randn(1, 8)], [torch.randn(8), torch.randn(1)]
        >>> weights, biases = modulated(W, b, [30.0], shift=[torch.randn(5, 8)])
        >>> fastsiren.functional.siren(torch.rand(7, 2), weights, biases, omegas=[30.0]).shape
        torch.Size([5, 7, 1])
    """
    folded, biases, omegas = list(weights), list(biases), list(omegas)
    sines = len(omegas)
    if len(folded) != len(biases) or sines not in (len(folded), len(folded) - 1):
        raise ValueError(
            f"weights, biases, omegas: got {len(folded)}, {len(biases)} and {sines} of them, expected as many biases "
            "as weights, and as many omegas or one fewer"
        )
    widths = [weight.shape[-2] for weight in folded[:sines]]
    scales, shifts = _per_layer("scale", scale, widths), _per_layer("shift", shift, widths)
    phases, gains = _per_layer("phase", phase, widths), _per_layer("gain", gain, widths)
    if sines == len(folded) and gains[-1] is not None:
        raise ValueError(
            "gain: got one for a sine layer that comes last, expected None there: multiply the result by it"
        )
    for l in range(len(folded)):
        before = gains[l - 1] if l else None
        if before is not None:
            folded[l] = folded[l] * before.unsqueeze(-2)
        if l == sines:
            break
        factor, bias = scales[l], biases[l]
        if factor is not None:
            folded[l] = factor.unsqueeze(-1) * folded[l]
            bias = None if bias is None else factor * bias
        added = [bias, shifts[l], _inside(phases[l], omegas[l])]
        biases[l] = _total([term for term in added if term is not None])
    return folded, biases


def _per_layer(name: str, given: Modulation | None, widths: list[int]) -> list[Tensor | None]:
    """One entry per sine layer, each of the width of its layer."""
    if given is None:
        return [None] * len(widths)
    found = listed(name, given, "tensors")
    if len(found) != len(widths):
        raise ValueError(f"{name}: got {len(found)} of them, expected {len(widths)}, one per sine layer")
    for l, (tensor, width) in enumerate(zip(found, widths, strict=True)):
        if tensor is not None and (not isinstance(tensor, Tensor) or tensor.ndim < 1 or tensor.shape[-1] != width):
            said = f"shape {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ValueError(f"{name}[{l}]: got {said}, expected None or a tensor ({width},) or (networks, {width})")
    return found


def _inside(phase: Tensor | None, omega: float) -> Tensor | None:
    """The shift inside omega that a phase outside of it is."""
    if phase is None:
        return None
    if omega == 0:
        raise ValueError("phase: got one for a layer with omega 0, expected None there: it has no shift inside omega")
    return phase / omega


def _total(terms: list[Tensor]) -> Tensor | None:
    return sum(terms[1:], start=terms[0]) if terms else None
